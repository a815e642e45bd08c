"""What becomes of a folder: a row of a table, and its check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingestion.bundle import SubmissionConfig
from ingestion.doubles import set_doubles_aside
from ingestion.errors import InputError
from ingestion.images import decode_dataset
from ingestion.inputs import _draw
from ingestion.prepare import _told_of_split, _validation
from ingestion.settings import IngestionSettings
from ingestion.sources import Source, read_source, summarise
from ingestion.survey import choose_preparations

PX = 16
Pixels = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Outcome:
    """What a folder became: its classes, with a slash before them the dataset where there are several."""

    source: Source
    classes: tuple[str, ...]
    images: Pixels
    notes: tuple[str, ...]
    broken: tuple[str, ...]


def outcome_of(folder: Path, scratch: Path) -> Outcome:
    """Everything that a run does with a folder up to its images."""
    source = choose_preparations(set_doubles_aside(read_source(folder)), PX)
    decoded = {
        name: decode_dataset(dataset, source.preparation(name, PX), scratch / "cache")
        for name, dataset in source.datasets.items()
    }
    classes = [
        name if len(decoded) == 1 else f"{dataset}/{name}"
        for dataset, each in decoded.items()
        for name in each.dataset.class_names
    ]
    flat = [f"flat: {file.name}" for each in decoded.values() for file in each.flat]
    return Outcome(
        source,
        tuple(classes),
        np.concatenate([each.images for each in decoded.values()]),
        (*summarise(source.notes), *flat),
        tuple(line for each in decoded.values() for line in each.broken),
    )


@dataclass(frozen=True)
class Row:
    """`classes`: in their order; `images`: of all; `notes`, `broken`: what their lines contain; `spread`: from the
    darkest to the brightest pixel of every image, at least; `most_pixels`: of an image that may be decoded."""

    build: Callable[[Path], object]
    classes: str = ""
    images: int = 0
    notes: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    error: str = ""
    spread: int = 0
    most_pixels: int | None = None


def check(row: Row, root: Path, tmp_path: Path) -> None:
    """What becomes of the folder is what the row says."""
    if row.error:
        with pytest.raises(InputError) as caught:
            outcome_of(root, tmp_path)
        assert row.error in str(caught.value) and "\n" not in str(caught.value)
        return
    outcome = outcome_of(root, tmp_path)
    assert outcome.classes == tuple(row.classes.split())
    assert len(outcome.images) == row.images
    for found, expected in ((outcome.notes, row.notes), (outcome.broken, row.broken)):
        text = "\n".join(found)
        assert bool(found) == bool(expected), text
        for part in expected:
            assert part in text, text
    if row.spread:
        flat = outcome.images.reshape(len(outcome.images), -1).astype(int)
        assert (flat.max(1) - flat.min(1)).min() >= row.spread


@dataclass(frozen=True)
class RunRow:
    """What a run makes of a folder: `parts`, each with its use and number of classes, and notes; or the error."""

    build: Callable[[Path], object]
    options: dict[str, Any] = field(default_factory=dict)
    parts: str = ""
    notes: tuple[str, ...] = ()
    error: str = ""
    validation: bool = False


def check_run(row: RunRow, root: Path) -> None:
    """What a run learns from and is tested on is what the row says."""
    usual: dict[str, Any] = {"query_images_per_class": None, "test_tasks_per_dataset": 1}
    settings = IngestionSettings(
        input_data_dir=root, submission=root, output_dir=root, **{**usual, **row.options}
    )
    if row.error:
        with pytest.raises(InputError) as caught:
            _draw(settings, read_source(root))
        assert row.error in str(caught.value) and "\n" not in str(caught.value)
        return
    split, draws = _draw(settings, read_source(root))
    config = SubmissionConfig(validation_datasets=2 if row.validation else 0)
    train, valid = _validation(split, config, 0, lambda event: None)
    uses = (("train", train), ("valid", valid), ("test", split.test))
    found = [f"{use}:{part.name}:{len(part.class_names)}" for use, parts in uses for part in parts]
    assert " ".join(found) == row.parts
    assert draws
    notes = _told_of_split(split, settings)
    assert len(notes) == len(row.notes), notes
    for note, expected in zip(notes, row.notes, strict=True):
        assert expected in note
