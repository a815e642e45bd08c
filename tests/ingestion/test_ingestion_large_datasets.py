"""What is done once for a dataset is not done again for each of its classes, tasks or shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingestion import generators, partial_dataset, splits
from ingestion.datasets import dataset_from_names
from ingestion.generators import TrainingSet
from ingestion.image_cache import ImageCache
from ingestion.loose_images import encode_thumbnail
from ingestion.partial_dataset import PartialDataset
from ingestion.preparation import Preparation
from ingestion.splits import Part
from ingestion.tasks import Rows, TaskConfig, draw_train_tasks, group_rows

LABELS = np.random.default_rng(0).permutation(np.arange(900) % 60)


def test_rows_of_classes_are_those_that_a_search_for_each_finds() -> None:
    labels = LABELS.copy()
    for label, rows in enumerate(group_rows(labels, 62)):
        assert rows.tolist() == np.flatnonzero(labels == label).tolist()


@pytest.mark.parametrize("module", [splits, generators])
def test_images_are_sorted_by_class_once(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for each class among all images takes images × classes, and for each task that is drawn again."""
    sorted_images: list[int] = []

    def counting(labels: Rows, classes: int) -> tuple[Rows, ...]:
        sorted_images.append(len(labels))
        return group_rows(labels, classes)

    monkeypatch.setattr(module, "group_rows", counting)
    if module is splits:
        dataset = dataset_from_names("a", [Path("a.jpg")] * 900, [str(label) for label in LABELS])
        part = Part(dataset, np.arange(0, 900, 2))
        assert [len(rows) for rows in part.rows_of_class] == np.bincount(part.labels).tolist()
        assert sorted_images == [450]
    else:
        images = np.zeros((900, 3, 1, 1), np.uint8)
        sets = [TrainingSet(name, images, LABELS) for name in ("a", "b")]
        assert len(list(draw_train_tasks(sets, TaskConfig(query_images_per_class=5), 40, 0))) == 40
        assert sorted_images == [900, 900]


def test_the_cache_is_not_looked_through_after_every_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files grow with the shards: all of them after each would take shards × shards."""
    monkeypatch.setattr(partial_dataset, "SHARD", 2)
    trimmed: list[int] = []
    monkeypatch.setattr(ImageCache, "trim", lambda _: trimmed.append(1))
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{number}.jpg" for number in range(20)]
    for file in files:
        file.write_bytes(encode_thumbnail(rng.integers(0, 256, (3, 8, 8), np.uint8), 8))
    dataset = dataset_from_names("a", files, ["x", "y"] * 10)
    some = PartialDataset(dataset, Preparation(8), tmp_path / "cache", tmp_path / "images")
    assert list(some.decode(np.arange(20)))[-1] == 20
    assert some.has(np.arange(20)).all() and len(trimmed) == 1
