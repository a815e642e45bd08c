"""Few-shot classification in Python: an estimator with the conventions of scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autometa.classifier.estimator import FewShotClassifier

__all__ = ["FewShotClassifier"]


def __getattr__(name: str) -> Any:
    """Import on first use: torch and scikit-learn take seconds."""
    if name not in __all__:
        raise AttributeError(f"module `autometa.classifier` has no attribute `{name}`")
    from autometa.classifier.estimator import FewShotClassifier  # noqa: PLC0415 - see above

    return FewShotClassifier
