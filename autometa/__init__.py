"""autometa: AutoML for few-shot image classification under a time and memory budget."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autometa.config import Settings
    from autometa.errors import AutometaError
    from autometa.learner import FittedLearner, FittedPredictor
    from autometa.saved import load_learner

__version__ = "0.1.0"
__all__ = ["AutometaError", "FittedLearner", "FittedPredictor", "Settings", "__version__", "load_learner"]

_HOMES = {
    "AutometaError": "errors",
    "FittedLearner": "learner",
    "FittedPredictor": "learner",
    "Settings": "config",
    "load_learner": "saved",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and not every program needs it."""
    if name not in _HOMES:
        raise AttributeError(f"module `autometa` has no attribute `{name}`")
    return getattr(importlib.import_module(f"autometa.{_HOMES[name]}"), name)
