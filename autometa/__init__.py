"""autometa: AutoML for few-shot image classification under a time and memory budget."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autometa.classifier import FewShotClassifier
    from autometa.core.errors import AutometaError
    from autometa.core.settings import Settings
    from autometa.model.fitted_learner import FittedLearner, FittedPredictor
    from autometa.model.load import load_learner

__version__ = "0.2.0"
__all__ = [
    "AutometaError",
    "FewShotClassifier",
    "FittedLearner",
    "FittedPredictor",
    "Settings",
    "__version__",
    "load_learner",
]

_HOMES = {
    "AutometaError": "core.errors",
    "FewShotClassifier": "classifier",
    "FittedLearner": "model.fitted_learner",
    "FittedPredictor": "model.fitted_learner",
    "Settings": "core.settings",
    "load_learner": "model.load",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and not every program needs it."""
    if name not in _HOMES:
        raise AttributeError(f"module `autometa` has no attribute `{name}`")
    return getattr(importlib.import_module(f"autometa.{_HOMES[name]}"), name)
