"""The adapter: pools from what the challenge gives, limits from the environment, the format's types."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.backbones import PRESETS, View
from autometa.backbones.shelf import BackboneShelf
from autometa.core import budget as budget_module
from autometa.core.budget import SMALL_BYTES, MemoryBudget, TimeBudget
from autometa.core.errors import DataError
from autometa.core.settings import Settings
from autometa.data.images import ImagePool, as_uint8
from autometa.data.pool import collect_pool
from autometa.evaluation.member import plain_member
from autometa.model.fitted_learner import FittedLearner
from autometa.model.portfolio import Portfolio
from autometa.planning.declared import BUDGETS, read_own_settings
from autometa.planning.meta_test import MetaTestSchedule
from autometa.planning.serving_limits import ServingLimits, with_asked_limits
from autometa.submission import (
    AutoLearner,
    AutoMetaLearner,
    read_limits,
    read_test_spec,
    with_named_backbones,
)

MEMORY = MemoryBudget(8 * 2**30)
TOLD = {
    "tasks": 7, "datasets": 1, "images": 50, "drawn_images": 90, "ways": [2, 5], "shots": [1, 3],
    "queries_per_class": 4, "px": 32, "protocol": "within-domain", "balanced": True,
    "standby": False,
}  # fmt: skip


@dataclass
class Set_:
    name: str
    images: np.ndarray
    labels: np.ndarray


def image_sets(pool: ImagePool) -> list[Set_]:
    sets = []
    for number, name in enumerate(pool.datasets):
        rows = np.flatnonzero(pool.dataset_of_class[pool.labels] == number)
        labels = pool.labels[rows] - pool.labels[rows].min()
        sets.append(Set_(name, pool.images[rows], labels))
    return sets


class Generator:
    """Our ingestion's generator: tasks on call, datasets as an attribute."""

    def __init__(self, pool: ImagePool) -> None:
        self.image_sets = image_sets(pool)


@dataclass
class StreamTask:
    support_set: tuple[torch.Tensor, ...]
    query_set: tuple[torch.Tensor, ...]
    dataset: str


def task_stream(pool: ImagePool, n: int) -> Iterator[StreamTask]:
    rng = np.random.default_rng(0)
    sets = image_sets(pool)
    for _ in range(n):
        chosen = sets[rng.integers(len(sets))]
        rows = rng.permutation(len(chosen.labels))[:20]
        images = torch.from_numpy(chosen.images[rows]).float() / 255
        labels = torch.from_numpy(chosen.labels[rows])
        yield StreamTask(
            (images[:10], labels[:10], labels[:10]), (images[10:], labels[10:], labels[10:]), chosen.name
        )


def quiet(_: str) -> None:
    return None


def same_classes(ours: ImagePool, theirs: ImagePool) -> bool:
    """Whether equal images share a class in both pools."""
    key = {image.tobytes(): label for image, label in zip(theirs.images, theirs.labels, strict=True)}
    pairs = {(int(a), int(key[i.tobytes()])) for i, a in zip(ours.images, ours.labels, strict=True)}
    return len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def test_float_images_become_the_bytes_they_were() -> None:
    values = torch.arange(256, dtype=torch.float32).div_(255).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert (as_uint8(values)[0, 0].ravel() == np.arange(256)).all()


def test_a_pool_comes_whole_from_our_ingestion() -> None:
    truth = colour_pool()
    pool = collect_pool(Generator(truth), TimeBudget.of(100), MEMORY, quiet)
    assert len(pool.images) == len(truth.images)
    assert pool.datasets == truth.datasets
    assert same_classes(pool, truth)


def test_little_memory_left_means_fewer_images_of_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = colour_pool(per_class=20)
    monkeypatch.setattr(budget_module, "own_bytes", lambda: SMALL_BYTES)
    pool = collect_pool(Generator(truth), TimeBudget.of(100), MemoryBudget(SMALL_BYTES), quiet)
    assert np.bincount(pool.labels).tolist() == [2] * truth.classes


def test_a_pool_is_collected_from_a_stream_of_tasks() -> None:
    truth = colour_pool()
    pool = collect_pool(lambda n: task_stream(truth, n), TimeBudget.of(100), MEMORY, quiet)
    assert len(pool.images) > 0.9 * len(truth.images)
    assert sorted(pool.datasets) == sorted(truth.datasets)
    assert same_classes(pool, truth)


def test_a_pool_is_collected_from_batches() -> None:
    truth = colour_pool()

    def batches(n: int) -> Iterator[list[torch.Tensor]]:
        rows = np.random.default_rng(0).permutation(len(truth.images))
        for i in range(n):
            part = rows[np.arange(i * 16, i * 16 + 16) % len(rows)]
            yield [torch.from_numpy(truth.images[part]).float() / 255, torch.from_numpy(truth.labels[part])]

    pool = collect_pool(batches, TimeBudget.of(100), MEMORY, quiet)
    assert len(pool.images) == len(truth.images)
    assert pool.datasets == ("all",)
    assert same_classes(pool, truth)


def test_an_empty_generator_is_an_error() -> None:
    with pytest.raises(DataError, match="no image"):
        collect_pool(lambda n: iter(()), TimeBudget.of(100), MEMORY, quiet)


def test_limits_come_from_ingestion_or_from_the_settings() -> None:
    now = time.monotonic()
    told = {
        "METADL_DEADLINE": str(now + 50),
        "METADL_META_TRAIN_DEADLINE": str(now + 30),
        "METADL_MEMORY_BYTES": "1000",
    }
    limits = read_limits(Settings(), told)
    assert limits.run.left_s() == pytest.approx(50, abs=1)
    assert limits.train.left_s() == pytest.approx(30, abs=1)
    assert limits.memory.total_bytes == 1000
    standing_by = {**told, "METADL_MEMORY_BYTES": "8000000000", "METADL_TEST_SPEC": '{"standby": true}'}
    assert 0 < read_limits(Settings(), standing_by).memory.total_bytes < 7_950_000_000
    assert read_limits(Settings(), standing_by, trains=False).memory.total_bytes == 8_000_000_000
    own = read_limits(Settings(time_budget="1h"), {})  # type: ignore[arg-type]
    assert 0 < own.train.left_s() <= 3600
    assert own.memory.total_bytes > 1000


def test_the_test_spec_comes_from_ingestion_or_from_the_settings() -> None:
    spec = read_test_spec(Settings(), {"METADL_TEST_SPEC": json.dumps(TOLD)})
    assert (spec.tasks, spec.images, spec.shown_images) == (7, 50, 90)
    assert spec.episodes.ways == (2, 5)
    assert read_test_spec(Settings(), {}).tasks == 6000


def test_a_process_that_replaces_another_plans_for_the_tasks_that_are_left(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = FittedLearner((plain_member(View(tiny_backbone, 32)),), BackboneShelf("cpu"), {})
    learner.save(tmp_path)
    monkeypatch.setenv("METADL_DEADLINE", str(time.monotonic() + 200))
    monkeypatch.setenv("METADL_TEST_SPEC", json.dumps(TOLD))
    monkeypatch.setattr(AutoLearner, "_loaded", None)
    planned: list[tuple[int, float]] = []

    def plan(schedule: MetaTestSchedule, members: Any, store: Any) -> Any:
        planned.append((schedule.tasks_left, schedule.images_left(members[0].view, store)))
        return members

    monkeypatch.setattr(MetaTestSchedule, "begin_task", plan)
    labels = torch.arange(2)
    for told in ({}, {"METADL_TASKS_LEFT": "2", "METADL_IMAGES_LEFT": "9"}):
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        adapter = AutoLearner()
        adapter.load(str(tmp_path))
        adapter.fit((torch.rand(2, 3, 32, 32), labels, labels, 2, 1))
    assert planned == [(TOLD["tasks"], TOLD["images"]), (2, 9)]


@pytest.mark.medium
def test_meta_fit_to_predict_in_the_format_s_types(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = colour_pool(classes=16)
    (tmp_path / "settings.yaml").write_text(
        f"backbones: [{tiny_backbone}]\nresolutions: [32]\nmax_trials: 6\ntune_steps: 0\nfamilies: []\n"
    )
    monkeypatch.setenv("METADL_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("METADL_DEADLINE", str(time.monotonic() + 200))
    monkeypatch.setenv("METADL_TEST_SPEC", json.dumps(TOLD))
    monkeypatch.setattr(AutoLearner, "_loaded", None)
    monkeypatch.setattr("autometa.submission.process_age_s", lambda: 2.0)  # not that of all tests before
    meta_learner = AutoMetaLearner()
    meta_learner.bundle = tmp_path
    learner = meta_learner.meta_fit(Generator(pool), None)
    learner.save(str(tmp_path))
    fresh: Any = AutoLearner()
    fresh.load(str(tmp_path))
    rows = np.concatenate([pool.rows_of_class[c][:3] for c in range(4)])
    labels = torch.arange(4).repeat_interleave(3)
    images = torch.from_numpy(pool.images[rows]).float() / 255
    predictor = fresh.fit((images, labels, labels, 4, 3))
    p = predictor.predict(images)
    assert p.shape == (12, 4)
    assert (p.argmax(1) == labels.numpy()).mean() > 0.8
    assert fresh.learner.schedule.tasks_left == TOLD["tasks"] - 1
    again: Any = AutoLearner()
    again.load(str(tmp_path))
    assert again.learner is fresh.learner
    assert isinstance(fresh.learner, Portfolio) and fresh.learner.validation["stage"] == "final"


def test_the_user_of_a_run_names_backbones_and_presets() -> None:
    settings = Settings(backbones=("a",))
    assert with_named_backbones(settings, {}) is settings
    named = with_named_backbones(settings, {"AUTOMETA_BACKBONES": "resnet18, tiny,resnet18"})
    assert named.backbones == ("resnet18", *PRESETS["tiny"])


def test_the_user_of_a_run_limits_what_the_learner_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(backbones=("a",), infer_limit=9.0)
    assert with_asked_limits(settings, {}) is settings
    asked = {"AUTOMETA_INFER_LIMIT": "30ms", "AUTOMETA_MAX_MODEL_SIZE": "50000000"}
    limited = with_asked_limits(settings, asked)
    assert ServingLimits.of(limited) == ServingLimits(0.03, None, 50_000_000)
    assert limited.backbones == ("a",) and limited.model_fields_set == {
        "backbones",
        "infer_limit",
        "max_model_size",
    }
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    lines: list[str] = []
    read_own_settings(Path(), BUDGETS, lines.append)
    assert lines == ["--infer-limit, --max-model-size: no effect on this submission, which does not search"]
