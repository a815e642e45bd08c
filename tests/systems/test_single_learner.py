"""One learner trained within a budget: early and safe on disk, honest about time and memory, loadable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.backbones import View
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.errors import ArtifactError, ConfigError, DataError
from autometa.core.files import read_format
from autometa.core.progress import Progress
from autometa.core.settings import validate_settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.data.test_spec import TestSpec
from autometa.evaluation.member import plain_member
from autometa.learners import storage, training_memory
from autometa.learners.augmentation import Augmentation
from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from autometa.learners.trained import TrainedLearner
from autometa.learners.training_settings import TrainingSettings
from autometa.model.fitted_learner import FittedLearner
from autometa.model.load import load_learner
from autometa.submission import AutoLearner, AutoMetaLearner, EpisodicMetaLearner
from autometa.systems import single_learner
from autometa.systems.single_learner import SingleLearnerSystem

SPEC = EpisodeSpec((2, 5), (1, 3), 4)
TEST = TestSpec(4, SPEC, 60, "within-domain")
SMALL = EncoderSpec(network="conv4", px=16, channels=8)


def recipe(**changes: Any) -> Recipe:
    training = TrainingSettings(max_steps=30, validate_every=10)
    return Recipe(**({"encoder": SMALL, "training": training} | changes))


def limits(train_s: float = 30.0, run_s: float = 60.0, memory: int = 8 * 2**30) -> Limits:
    return Limits(TimeBudget.of(train_s), TimeBudget.of(run_s), MemoryBudget(memory))


def trained(folder: Path, what: Recipe, bounds: Limits | None = None) -> tuple[TrainedLearner, list[str]]:
    lines: list[str] = []
    training = SingleLearnerSystem(what, TEST, bounds or limits(), folder, lines.append, start_s=1.0)
    training.bootstrap()
    return training.run(colour_pool(classes=16)), lines


@pytest.mark.medium
def test_an_engine_is_chosen_for_all_images_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(single_learner, "choose_engine", lambda _, images, n, *rest: asked.append(n))
    trained(tmp_path, recipe())
    assert asked == [len(colour_pool(classes=16).images) + TEST.images]


def answer(learner: TrainedLearner, pool: ImagePool) -> np.ndarray[Any, Any]:
    rows = np.array([np.flatnonzero(pool.labels == c)[:5] for c in range(4)])
    support, query = rows[:, :2].ravel(), rows[:, 2:].ravel()
    predictor = learner.fit(pool.images[support], np.arange(4).repeat(2), 4)
    return predictor.predict(pool.images[query])


def test_a_valid_learner_is_on_disk_before_any_image_is_read(tmp_path: Path) -> None:
    SingleLearnerSystem(recipe(), TEST, limits(), tmp_path, print).bootstrap()
    learner = TrainedLearner.load(tmp_path)
    assert learner.validation == {"stage": "untrained"}
    probabilities = answer(learner, colour_pool())
    np.testing.assert_allclose(probabilities.sum(1), 1)


@pytest.mark.medium
def test_training_improves_what_it_saves_and_loading_gives_the_same_answers(tmp_path: Path) -> None:
    learner, lines = trained(tmp_path, recipe())
    assert learner.validation["stage"] == "final"
    assert learner.validation["normalised_accuracy"] > 0.6
    assert any("before" in line for line in lines)
    told = [standing.score or 0.0 for line in lines if (standing := Progress.parse(line))]
    assert told == sorted(told) and told[-1] == pytest.approx(
        learner.validation["normalised_accuracy"], abs=1e-3
    )
    pool = colour_pool()
    np.testing.assert_allclose(answer(TrainedLearner.load(tmp_path), pool), answer(learner, pool), atol=1e-6)


def test_without_time_the_untrained_learner_is_what_there_is(tmp_path: Path) -> None:
    learner, lines = trained(tmp_path, recipe(), limits(train_s=0.0, run_s=0.0))
    assert learner.validation == {"stage": "untrained"}
    assert any("not trained further" in line for line in lines)
    assert answer(TrainedLearner.load(tmp_path), colour_pool()).shape == (12, 4)


@pytest.mark.medium
@pytest.mark.parametrize("disk", [True, False])
def test_images_that_memory_has_no_room_for_go_to_the_disk_if_there_is_one(
    tmp_path: Path, disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tight(MemoryBudget):
        def left_bytes(self) -> int:
            return 250_000

    monkeypatch.setattr(storage, "_file_system", lambda _: "ext4" if disk else "tmpfs")
    monkeypatch.setattr(training_memory, "room_bytes", lambda *_: 2**30)  # of images, not of steps
    bounds = limits()
    learner, lines = trained(tmp_path, recipe(), Limits(bounds.train, bounds.run, Tight(0)))
    assert learner.validation["stage"] == "final"
    assert any("of prepared images are in a file" in line for line in lines) == disk
    assert any("130 of 224 images fit" in line for line in lines) != disk


def test_a_step_that_memory_has_no_room_for_leaves_the_learner_untrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_memory, "room_bytes", lambda *_: 2**20)
    learner, lines = trained(tmp_path, recipe())
    assert learner.validation == {"stage": "untrained"}
    assert any("not trained further: a training step on one episode of" in line for line in lines)


def test_too_few_classes_to_hold_any_out_leave_the_learner_untrained(tmp_path: Path) -> None:
    lines: list[str] = []
    training = SingleLearnerSystem(recipe(), TEST, limits(), tmp_path, lines.append)
    training.bootstrap()
    learner = training.run(colour_pool(classes=3, datasets=1))
    assert learner.validation == {"stage": "untrained"}
    assert any("no episode can be drawn" in line for line in lines)


@dataclass
class StreamTask:
    support_set: tuple[torch.Tensor, ...]
    query_set: tuple[torch.Tensor, ...]
    num_ways: int


def stream(pool: ImagePool, n: int) -> Iterator[StreamTask]:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(pool.images).float() / 255
    for _ in range(min(n, 1000)):
        classes = rng.permutation(8)[:3]
        rows = np.stack([rng.permutation(np.flatnonzero(pool.labels == c))[:5] for c in classes])
        support, query = rows[:, :2].ravel(), rows[:, 2:].ravel()
        yield StreamTask(
            (images[support], torch.arange(3).repeat_interleave(2)),
            (images[query], torch.arange(3).repeat_interleave(3)),
            3,
        )


@pytest.mark.medium
def test_the_stream_of_tasks_trains_as_the_pool_does(tmp_path: Path) -> None:
    pool = colour_pool(classes=16)
    training = SingleLearnerSystem(recipe(data="stream"), TEST, limits(), tmp_path, print)
    training.bootstrap()
    learner = training.run(pool, lambda n: stream(pool, n))
    assert learner.validation["stage"] == "final"
    assert learner.validation["normalised_accuracy"] > 0.6


@pytest.mark.medium
@pytest.mark.parametrize(("train_s", "px"), [(1e6, 48), (30.0, 32)])
def test_images_are_larger_where_time_allows(
    train_s: float, px: int, tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_learner, "choose_engine", lambda *_: None)
    if px == 32:  # a size that would take too long
        measured = single_learner.measure_costs
        slow = lambda *given: replace(measured(*given), image_s=0.05)  # noqa: E731
        monkeypatch.setattr(single_learner, "measure_costs", slow)
    what = recipe(
        encoder=EncoderSpec(network=tiny_backbone, px=32), larger_px=(48,) if px == 48 else (64, 48)
    )
    learner, lines = trained(tmp_path, what, limits(train_s, train_s))
    assert learner.recipe.encoder.px == TrainedLearner.load(tmp_path).recipe.encoder.px == px
    assert any("images are taken at 48 px" in line for line in lines) == (px == 48)
    assert any("no time for images of 64 px" in line for line in lines) == (px == 32)
    assert learner.validation["stage"] == "final"


@pytest.mark.medium
def test_copies_of_images_are_made_as_far_as_there_is_room(tmp_path: Path, tiny_backbone: str) -> None:
    encoder = EncoderSpec(network=tiny_backbone, px=32, trainable=1)
    what = recipe(encoder=encoder, augmentation=Augmentation(flip=True, shift=0.1), copies=2)
    learner, lines = trained(tmp_path, what, limits(1e6, 1e6))
    assert any("2 augmented copies of each of 168 images to train on" in line for line in lines)
    assert learner.validation["stage"] == "final"


@pytest.mark.medium
def test_a_frozen_backbone_travels_with_the_learner(tmp_path: Path, tiny_backbone: str) -> None:
    encoder = EncoderSpec(network=tiny_backbone, px=32)
    learner, _ = trained(tmp_path, recipe(encoder=encoder))
    pool = colour_pool()
    np.testing.assert_allclose(answer(TrainedLearner.load(tmp_path), pool), answer(learner, pool), atol=1e-5)


def test_bad_support_sets_recipes_and_files_are_named(tmp_path: Path) -> None:
    learner = SingleLearnerSystem(recipe(), TEST, limits(), tmp_path, print).bootstrap()
    with pytest.raises(DataError, match="each of 3 classes"):
        learner.fit(colour_pool().images[:2], np.array([0, 1]), 3)
    with pytest.raises(ConfigError, match="unknown learner `protonet`"):
        SingleLearnerSystem(recipe(learner="protonet"), TEST, limits()).bootstrap()
    with pytest.raises(ConfigError, match=r"options of prototypical: .*metric"):
        SingleLearnerSystem(recipe(options={"metrik": "cosine"}), TEST, limits()).bootstrap()
    (tmp_path / "learner.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        TrainedLearner.load(tmp_path)


class Sets:
    """Our ingestion's generator: the datasets as an attribute."""

    def __init__(self, pool: ImagePool) -> None:
        @dataclass
        class Set_:
            name: str
            images: np.ndarray[Any, Any]
            labels: np.ndarray[Any, Any]

        self.image_sets = [Set_("D", pool.images, pool.labels)]


@pytest.mark.medium
def test_the_adapter_trains_saves_and_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(EpisodicMetaLearner):
        pass

    Mine.recipe = recipe()
    Mine.bundle = tmp_path
    monkeypatch.setenv("METADL_MODEL_DIR", str(tmp_path))
    fitted = Mine().meta_fit(Sets(colour_pool(classes=16)), None)
    fitted.save(str(tmp_path))
    assert read_format(tmp_path) == "autometa-trained-1"
    served = AutoLearner()
    served.load(str(tmp_path))
    pool = colour_pool()
    images = torch.from_numpy(pool.images[:28]).float() / 255
    labels = torch.from_numpy(pool.labels[:28])
    predictions = served.fit((images, labels, labels, 2, 14)).predict(images)
    assert predictions.shape == (28, 2)
    assert (predictions.argmax(1) == pool.labels[:28]).mean() > 0.8


def test_settings_that_only_a_search_heeds_are_refused(tmp_path: Path) -> None:
    class Mine(EpisodicMetaLearner):
        bundle = tmp_path

    (tmp_path / "settings.yaml").write_text("time_budget: 30s\nmax_trials: 7\nbackbones: [resnet18]\n")
    with pytest.raises(
        ConfigError, match=r"settings.yaml: backbones, max_trials would have no effect.*recipe"
    ):
        Mine().meta_fit(Sets(colour_pool(classes=16)), None)


def test_a_search_refuses_a_number_of_training_steps(tmp_path: Path) -> None:
    class Mine(AutoMetaLearner):
        bundle = tmp_path

    (tmp_path / "settings.yaml").write_text("max_steps: 7\n")
    with pytest.raises(ConfigError, match=r"settings.yaml: max_steps would have no effect.*searches"):
        Mine().meta_fit(Sets(colour_pool(classes=16)), None)


@pytest.mark.medium
def test_a_bundle_makes_as_many_steps_as_its_settings_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Mine(EpisodicMetaLearner):
        bundle = tmp_path
        recipe = Recipe(encoder=SMALL)

    (tmp_path / "settings.yaml").write_text(
        "time_budget: 9h\nmax_steps: 7\nvalidation_episodes: 11\ntest: {tasks: 4, images: 60}\n"
    )
    learner = Mine().meta_fit(Sets(colour_pool(classes=16)), None).learner
    assert isinstance(learner, TrainedLearner) and learner.recipe.validation_episodes == 11
    assert "prototypical: 7 steps in" in capsys.readouterr().out


@pytest.mark.medium
def test_either_kind_of_learner_is_loaded_by_one_function(tmp_path: Path, tiny_backbone: str) -> None:
    trained(tmp_path, recipe())
    assert isinstance(load_learner(tmp_path), TrainedLearner)
    FittedLearner((plain_member(View(tiny_backbone, 32)),), BackboneShelf("cpu")).save(tmp_path)
    # weights of the tiny network are random and seeded, but saved all the same
    assert isinstance(load_learner(tmp_path), FittedLearner)


def test_a_stream_that_ends_leaves_the_best_state(tmp_path: Path) -> None:
    pool = colour_pool(classes=16)
    training = SingleLearnerSystem(recipe(data="stream"), TEST, limits(), tmp_path, print)
    training.bootstrap()
    learner = training.run(pool, lambda _: stream(pool, 60))
    assert not learner.learner.training
    np.testing.assert_allclose(answer(TrainedLearner.load(tmp_path), pool).sum(1), 1)


def test_augmentation_without_images_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="augmentation needs images"):
        validate_settings(Recipe, {"augmentation": {"flip": True}, "data": "stream"}, "recipe")
    with pytest.raises(ConfigError, match="runs backwards"):
        validate_settings(Recipe, {"shots": (5, 1)}, "recipe")


@pytest.mark.medium
def test_only_the_latest_state_stays_on_disk_and_no_query_has_no_answer(tmp_path: Path) -> None:
    learner, _ = trained(tmp_path, recipe())
    with torch.no_grad():
        next(learner.learner.parameters()).add_(1.0)
    learner.save(tmp_path)
    assert len(list(tmp_path.glob("network-*"))) == 1
    images = colour_pool().images[:2]
    predictor = TrainedLearner.load(tmp_path).fit(images, np.array([0, 1]), 2)
    assert predictor.predict(images[:0]).shape == (0, 2)
