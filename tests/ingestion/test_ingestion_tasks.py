"""The draw of tasks reproduces the original challenge code, row for row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from ingestion.tasks import TaskConfig, TaskDraw, draw_test_tasks, draw_train_tasks

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "cdmetadl_seed93.json").read_text())


@dataclass(frozen=True)
class Sizes:
    name: str
    rows_of_class: list[NDArray[np.int64]]


def golden_datasets() -> list[Sizes]:
    datasets = []
    for name, sizes in GOLDEN["images_per_class"].items():
        if name == "GAMMA":  # its rows go shot by shot
            labels = [c for shot in range(max(sizes)) for c, size in enumerate(sizes) if shot < size]
        else:
            labels = [c for c, size in enumerate(sizes) for _ in range(size)]
        array = np.array(labels)
        datasets.append(Sizes(name, [np.flatnonzero(array == c) for c in range(len(sizes))]))
    return datasets


def as_golden(draw: TaskDraw) -> dict[str, Any]:
    arrays = ("classes", "support_rows", "support_labels", "query_rows", "query_labels")
    dataset = list(GOLDEN["images_per_class"])[draw.dataset]
    scalars = {"dataset": dataset, "ways": draw.ways, "shots": draw.shots}
    return scalars | {name: getattr(draw, name).tolist() for name in arrays}


def test_meta_test_draw_is_the_original_one() -> None:
    draws = draw_test_tasks(golden_datasets(), TaskConfig(**GOLDEN["test_config"]), 5, GOLDEN["seed"])
    assert [as_golden(draw) for draw in draws] == GOLDEN["test_tasks"]


def test_meta_train_draw_is_the_original_one() -> None:
    tasks = len(GOLDEN["train_tasks"])
    draws = draw_train_tasks(golden_datasets(), TaskConfig(**GOLDEN["train_config"]), tasks, GOLDEN["seed"])
    assert [as_golden(draw) for draw in draws] == GOLDEN["train_tasks"]


def test_every_call_of_a_generator_starts_from_the_seed_again() -> None:
    config = TaskConfig()
    first, again = (list(draw_train_tasks(golden_datasets(), config, 3, 7)) for _ in range(2))
    assert [as_golden(a) for a in first] == [as_golden(b) for b in again]


def test_ways_and_shots_are_clamped_to_the_data() -> None:
    data = [Sizes("small", [np.arange(i * 6, i * 6 + 6) for i in range(3)])]
    config = TaskConfig(N=20, k=20, query_images_per_class=4)
    (draw,) = draw_test_tasks(data, config, 1, 0)
    assert (draw.ways, draw.shots) == (3, 2)
    assert set(draw.support_rows).isdisjoint(draw.query_rows)
    (draw,) = draw_test_tasks(data, TaskConfig(N=2), 1, 0)
    assert (draw.shots, draw.query_rows.size) == (1, 2 * 5)


@pytest.mark.parametrize(
    "bad",
    [
        {"N": 1},
        {"min_N": 9, "max_N": 3},
        {"min_N": None},
        {"k": 0},
        {"N": 5.5},
        {"query_images_per_class": 0},
    ],
)
def test_impossible_configurations_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TaskConfig(**bad)
