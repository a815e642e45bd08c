"""Ingestion: feeds meta-train datasets to a submission and hidden tasks to the learner it leaves behind."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingestion.errors import IngestionError, InputError, SubmissionError
    from ingestion.program import IngestionResult, run
    from ingestion.settings import Event, IngestionSettings

__all__ = [
    "Event",
    "IngestionError",
    "IngestionResult",
    "IngestionSettings",
    "InputError",
    "SubmissionError",
    "run",
]

_HOMES = {
    "Event": "settings",
    "IngestionSettings": "settings",
    "IngestionResult": "program",
    "run": "program",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the submission's process needs little of this package, and needs it fast."""
    if name not in __all__:
        raise AttributeError(f"module `ingestion` has no attribute `{name}`")
    return getattr(importlib.import_module(f"ingestion.{_HOMES.get(name, 'errors')}"), name)
