"""Ingestion: gives meta-train datasets to a submission, and hidden tasks to the learner that it saves."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingestion.errors import IngestionError, InputError, SubmissionError
    from ingestion.inputs import check_inputs, check_submission
    from ingestion.labelled import read_labelled
    from ingestion.pixels import decode_image
    from ingestion.preparation import Preparation
    from ingestion.program import run
    from ingestion.result import IngestionResult
    from ingestion.settings import Event, IngestionSettings
    from ingestion.sources import read_source

__all__ = [
    "Event",
    "IngestionError",
    "IngestionResult",
    "IngestionSettings",
    "InputError",
    "Preparation",
    "SubmissionError",
    "check_inputs",
    "check_submission",
    "decode_image",
    "read_labelled",
    "read_source",
    "run",
]

_HOMES = {
    "Event": "settings",
    "IngestionSettings": "settings",
    "IngestionResult": "result",
    "Preparation": "preparation",
    "check_inputs": "inputs",
    "check_submission": "inputs",
    "decode_image": "pixels",
    "read_labelled": "labelled",
    "read_source": "sources",
    "run": "program",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the process of the submission needs few of these modules and must start fast."""
    if name not in __all__:
        raise AttributeError(f"module `ingestion` has no attribute `{name}`")
    return getattr(importlib.import_module(f"ingestion.{_HOMES.get(name, 'errors')}"), name)
