"""A training that was killed goes on as if it had not been."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from learner_cases import held_out, pool_source, red_pool
from safetensors.torch import load_file

from autometa.core.budget import TimeBudget
from autometa.core.errors import ArtifactError
from autometa.data.episodes import EpisodeSpec
from autometa.evaluation.validation_episodes import Answer
from autometa.learners.augmentation import Augmentation
from autometa.learners.checkpoint import PROGRESS
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import InputEpisodes, PoolSource
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.training import Training, TrainingRecord
from autometa.learners.training_settings import TrainingSettings

SPEC = EpisodeSpec(ways=(3, 5), shots=(1, 3), queries_per_class=3)
SETTINGS = TrainingSettings(max_steps=10, validate_every=3, learning_rate=0.01, meta_batch=2)
PATIENT = TrainingSettings(max_steps=40, validate_every=2, patience=2, meta_batch=1)


class Killed(Exception):
    """What ends a training from outside."""


class Fragile:
    """A source that fails at a draw."""

    def __init__(self, inner: Any, fails_at: int) -> None:
        self.inner, self.left = inner, fails_at
        self.state, self.restore, self.classes = inner.state, inner.restore, inner.classes

    def draw(self, n: int) -> InputEpisodes:
        if not self.left:
            raise Killed
        self.left -= 1
        return self.inner.draw(n)


def training_of(
    folder: Path | None,
    name: str = "prototypical",
    channels: int = 8,
    settings: TrainingSettings = SETTINGS,
) -> Training:
    pool = red_pool()
    encoder = EncoderSpec(network="conv4", px=8, channels=channels, pools=2)
    return Training(
        build_learner(Recipe(learner=name, encoder=encoder)),
        pool_source(pool, SPEC, classes=10, augmentation=Augmentation(flip=True)),
        held_out(pool, SPEC, 10, 12),
        settings,
        TimeBudget.of(1e12),
        checkpoint=folder,
    )


def scripted(training: Training, accuracies: Sequence[float]) -> None:
    """Let validation give these accuracies, one after the other, then zero."""
    left = list(accuracies)
    training.learner.validate = lambda *_: Answer((), np.full(3, left.pop(0) if left else 0.0))


def killed_at(
    step: int,
    folder: Path,
    name: str = "prototypical",
    settings: TrainingSettings = SETTINGS,
    accuracies: Sequence[float] = (),
) -> None:
    training = training_of(folder, name, settings=settings)
    training.source = Fragile(training.source, step)
    if accuracies:
        scripted(training, accuracies)
    with pytest.raises(Killed):
        training.run()


def saved(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def same_record(a: TrainingRecord, b: TrainingRecord) -> bool:
    parts = [(r.untrained.accuracies.tolist(), r.best.accuracies.tolist(), r.steps, r.ended) for r in (a, b)]
    return parts[0] == parts[1]


@pytest.mark.medium
@pytest.mark.parametrize("name", ["siamese", "matching_fce", "prototypical", "imprinted", "simpleshot"])
def test_interrupted_and_resumed_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    whole = training_of(tmp_path / "whole", name)
    record = whole.run()
    before = int(name == "simpleshot")  # it sees some images before the first step
    killed_at(5 + before, tmp_path / "cut", name)
    killed_at(3 + before, tmp_path / "cut", name)
    torch.manual_seed(77)
    resumed = training_of(tmp_path / "cut", name)
    lines: list[str] = []
    resumed.report = lines.append
    assert same_record(resumed.run(), record)
    assert any("goes on at step 6" in line for line in lines)
    a, b = saved(tmp_path / "whole"), saved(tmp_path / "cut")
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []
    assert cast(PoolSource, whole.source).state() == cast(PoolSource, resumed.source).state()
    states = whole.learner.state_dict(), resumed.learner.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_checkpoints_do_not_change_what_is_learned(tmp_path: Path) -> None:
    with_them, without = training_of(tmp_path), training_of(None)
    assert same_record(with_them.run(), without.run())
    states = with_them.learner.state_dict(), without.learner.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_training_that_has_ended_makes_no_more_steps(tmp_path: Path) -> None:
    record = training_of(tmp_path).run()
    again = training_of(tmp_path)
    again.source = Fragile(again.source, 0)
    assert same_record(again.run(), record)


@pytest.mark.medium
def test_patience_goes_on_where_it_was(tmp_path: Path) -> None:
    """The untrained state is the best one, then a better one is found at step 6, before a kill at 8."""
    records = []
    for folder, dies_at in ((tmp_path / "whole", None), (tmp_path / "cut", 8)):
        if dies_at:
            killed_at(dies_at, folder, settings=PATIENT, accuracies=[0.1, 0.0, 0.0, 0.5])
        again = training_of(folder, settings=PATIENT)
        scripted(again, [0.1, 0.0, 0.0, 0.5] if dies_at is None else [0.1])
        records.append(again.run())
    assert records[0].ended == "no better state for long"
    assert (records[1].steps, records[1].ended) == (records[0].steps, records[0].ended)


LOST = TrainingSettings(
    max_steps=24, validate_every=1, patience=1, meta_batch=1, repeatable=True, learning_rate=0.01
)
STALE = [0.5] * 2 + [0.6] + [0.0] * 30
"""Accuracies of validations: two of the untrained state, a better one, and never again."""


def trace_of(folder: Path, dies_at: int | None = None) -> tuple[list[float], dict[str, torch.Tensor]]:
    """A training that goes back to its best state: the rates of its steps, and what it ends with."""
    training, rates = training_of(folder, settings=LOST), list[float]()
    resumes = (folder / PROGRESS).exists()
    scripted(training, [0.5] * 2 if resumes else STALE)
    step = training._step

    def stepping() -> None:
        if training._schedule.steps == dies_at:
            raise Killed
        step()
        rates.append(training._optimizer.param_groups[0]["lr"])

    training._step = stepping  # type: ignore[method-assign]
    if dies_at is None:
        training.run()
    else:
        with pytest.raises(Killed):
            training.run()
    return rates, training.learner.state_dict() | saved(folder)


@pytest.mark.medium
def test_a_training_that_went_back_goes_on_from_there(tmp_path: Path) -> None:
    """Killed before any of its steps, some of which come right after it went back with a smaller rate."""
    rates, state = trace_of(tmp_path / "whole")
    scales = np.array(rates) / [0.005 * (1 + np.cos(np.pi * step / 24)) for step in range(len(rates))]
    back = np.flatnonzero(np.diff(scales) < -0.1) + 1
    assert len(back) >= 2, "it went back more than once"
    for dies_at in range(2, len(rates)):
        folder = tmp_path / str(dies_at)
        before, _ = trace_of(folder, dies_at)
        after, resumed = trace_of(folder)
        assert before + after == rates, dies_at
        assert [key for key in state if not torch.equal(state[key], resumed[key])] == [], dies_at


def test_a_training_that_was_lost_or_diverged_makes_no_more_steps(tmp_path: Path) -> None:
    rates, _ = trace_of(tmp_path / "lost")
    assert 2 < len(rates) < 24
    assert trace_of(tmp_path / "lost")[0] == []
    diverging = training_of(tmp_path / "diverged")
    loss, made = diverging.learner.loss, [0]

    def spoiled(episodes: InputEpisodes) -> torch.Tensor:
        made[0] += 1
        return loss(episodes) * (torch.nan if made[0] > 5 else 1.0)

    diverging.learner.loss = spoiled  # type: ignore[method-assign]
    record = diverging.run()
    assert record.diverged and record.steps == 5
    again = training_of(tmp_path / "diverged")
    again.source = Fragile(again.source, 0)
    assert same_record(again.run(), record)


def test_only_the_latest_checkpoint_is_kept(tmp_path: Path) -> None:
    training_of(tmp_path).run()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["training-10.safetensors", PROGRESS]


@pytest.mark.medium
def test_a_kill_while_writing_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(5, tmp_path)

    def cut(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_text", cut)
        second = training_of(tmp_path)
        with pytest.raises(Killed):
            second.run()
    resumed = training_of(tmp_path)
    lines: list[str] = []
    resumed.report = lines.append
    assert same_record(resumed.run(), training_of(None).run())
    assert any("goes on at step 3" in line for line in lines)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (PROGRESS, b"{"),
        (PROGRESS, b'{"steps": 3}'),
        (PROGRESS, b"\xff\xfe"),
        ("training-3.safetensors", b"nothing"),
        ("training-3.safetensors", None),
    ],
)
def test_a_damaged_checkpoint_is_named(file: str, content: bytes | None, tmp_path: Path) -> None:
    killed_at(5, tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=file):
        training_of(tmp_path).run()


def test_a_checkpoint_of_another_learner_is_named(tmp_path: Path) -> None:
    killed_at(5, tmp_path)
    with pytest.raises(ArtifactError, match=r"training-3\.safetensors"):
        training_of(tmp_path, channels=4).run()
