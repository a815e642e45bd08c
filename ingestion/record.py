"""The record of a run: what was asked for, what it led to and how long it took."""

from __future__ import annotations

import json
import time
from typing import Any

from ingestion.class_splits import TEST, TRAIN, VALID
from ingestion.outputs import RECORD_FILE, write_atomically, write_metadata
from ingestion.prepare import Prepared
from ingestion.result import IngestionResult
from ingestion.settings import IngestionSettings


def describe_class_split(settings: IngestionSettings, prepared: Prepared) -> dict[str, Any] | None:
    """The name of the file with the split, its digest, and how many classes it names; None where there is none."""
    if settings.class_split is None or prepared.class_split is None:
        return None
    split = prepared.class_split
    return {
        "file": settings.class_split.resolve().name,
        "digest": split.digest,
        "classes": {TRAIN: len(split.train), VALID: len(split.validation), TEST: len(split.test)},
    }


def write_record(
    settings: IngestionSettings, prepared: Prepared, result: IngestionResult, used: dict[str, Any]
) -> None:
    """`ingestion.json` and `metadata_ingestion`. `used`: the sandbox, the limit of GPU memory and the machine."""
    folder, datasets = settings.output_dir, len(prepared.split.test)
    total = time.monotonic() - settings.started
    stages = dict(result.seconds)
    result.seconds["total"] = total
    seconds = {name: result.seconds.get(name, 0.0) for name in ("total", "meta_train", "meta_test")}
    write_metadata(folder, seconds, datasets, result.tasks // datasets)
    record = {
        "submission": settings.submission.resolve().name,
        "protocol": prepared.split.protocol,
        "class_split": describe_class_split(settings, prepared),
        "seed": settings.seed,
        "image_size": prepared.px,
        "image_shape": prepared.preparation.shape,
        "preparation": prepared.preparation.to_json(),
        "time_budget_s": settings.time_budget_s,
        "memory_budget_bytes": settings.memory_budget_bytes,
        "duration_s": total,
        "stages": [{"name": name, "seconds": s} for name, s in stages.items()],
        "test_config": prepared.split.test_config.model_dump(),
        "failures": {str(task): reason for task, reason in sorted(result.failures.items())},
        "set_aside": [
            *prepared.split.set_aside,
            *(line for decoded in prepared.images.values() for line in decoded.broken),
        ],
        "notes": [note for note in result.notes if not note.startswith("set aside")],
        **used,
    }
    write_atomically(folder / RECORD_FILE, json.dumps(record, indent=1))
