"""Families of trained learners: trained within a budget on the classes given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import FakeClock, colour_pool

from autometa.backbones import CATALOGUE, BackboneSpec, build
from autometa.core.budget import TimeBudget
from autometa.core.errors import BudgetExhausted, ConfigError, DataError, Diverged
from autometa.core.settings import FAMILIES_IN_ORDER
from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool
from autometa.data.splits import split_classes
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners import training_run
from autometa.learners.prepared import PreparedImages
from autometa.learners.recipe import Recipe
from autometa.learners.schedule import FIRST_STEPS
from autometa.learners.trained import TrainedLearner
from autometa.learners.training import Training
from autometa.search.families import FAMILIES, find_family
from autometa.search.family_training import TrainingSet, train_family

pytestmark = pytest.mark.medium
"""They train on a real, if tiny, network."""
POOL = colour_pool(classes=16)
FIT, HELD = split_classes(POOL, 0.5, np.random.default_rng(0))
SPEC = EpisodeSpec((2, 4), (1, 3), 4)


def rows_of(classes: Any) -> Any:
    return np.flatnonzero(np.isin(POOL.labels, classes))


def training_set() -> TrainingSet:
    rows = rows_of(FIT)
    return TrainingSet(PreparedImages(POOL.images[rows]), POOL.labels[rows], POOL.dataset_of_class, SPEC)


def held_out() -> tuple[PreparedImages, ValidationEpisodes]:
    rows = rows_of(HELD)
    part = ImagePool(POOL.images[rows], POOL.labels[rows], POOL.dataset_of_class, POOL.datasets)
    episodes = sample_episodes(part, HELD, SPEC, 12, np.random.default_rng(1))
    return PreparedImages(part.images), ValidationEpisodes(episodes)


def answer(fitted: TrainedLearner) -> Answer:
    """On classes held out."""
    images, episodes = held_out()
    return fitted.learner.eval().validate(images.inputs_for(fitted.learner.encoder), episodes)


def recipe(family: str, backbone: str, **training: Any) -> Recipe:
    """Of few steps, so that a test takes a second."""
    made = find_family(family).recipe(backbone, 32, SPEC)
    few = {} if family == "prototypical" else {"steps": 3}
    few |= {"test_steps": 3} if "test_steps" in made.options else {}
    settings = made.training.model_copy(update={"max_steps": 8, "validate_every": 4, **training})
    return made.model_copy(
        update={"options": made.options | few, "training": settings, "validation_episodes": 8}
    )


def changed(fitted: TrainedLearner, before: TrainedLearner) -> set[str]:
    """Names of the tensors that training has changed."""
    states = fitted.learner.state_dict(), before.learner.state_dict()
    assert set(states[0]) == set(states[1])
    return {name for name, tensor in states[0].items() if not torch.equal(tensor, states[1][name])}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_its_tail_and_is_surer_of_classes_that_it_has_not_seen(
    family: str, tiny_backbone: str
) -> None:
    rates = {"maml": {"learning_rate": 0.01}, "anil": {"learning_rate": 0.001}}  # random start weights: slow
    made = recipe(family, tiny_backbone, max_steps=30, validate_every=10, **rates.get(family, {}))
    lines: list[str] = []
    fitted = train_family(made, training_set(), TimeBudget.of(300), report=lines.append)
    assert any("30 steps" in line for line in lines), lines
    before = TrainedLearner.untrained(made)
    tail = {name for name, _ in before.learner.named_parameters() if name.startswith("encoder.tail")}
    assert tail & changed(fitted, before), "statistics of batch norm change without training, too"
    first, last = answer(before), answer(fitted)
    assert last.log_loss < first.log_loss and last.mean >= first.mean - 0.05
    assert not fitted.learner.training


def test_training_starts_from_weights_at_hand(tiny_backbone: str) -> None:
    made = recipe("pmf", tiny_backbone, max_steps=1)
    weights = TrainedLearner.untrained(recipe("pmf", tiny_backbone)).learner.encoder.backbone_state()
    assert weights is not None
    weights = {k: v + 1e-2 if v.is_floating_point() else v for k, v in weights.items()}
    fitted = TrainedLearner.untrained(made, weights=weights)
    state = fitted.learner.encoder.backbone_state()
    assert state is not None and all(torch.equal(state[name], weights[name]) for name in weights)


def test_classes_held_out_are_never_seen(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings: list[Training] = []

    def spy(*args: Any, **named: Any) -> Training:
        trainings.append(Training(*args, **named))
        return trainings[-1]

    monkeypatch.setattr(training_run, "Training", spy)
    given = training_set()
    train_family(recipe("fomaml", tiny_backbone, max_steps=1), given, TimeBudget.of(60))
    (training,) = trainings
    validated = {
        int(given.labels[row])
        for e in training.validation.episodes.episodes
        for row in (*e.support_rows, *e.query_rows)
    }
    drawn: set[int] = set()
    for _ in range(60):
        batch, _ = training.source.sampler.draw(2)  # type: ignore[attr-defined]
        for rows in (batch.support_rows, batch.query_rows):
            drawn |= set(given.labels[rows.flatten().numpy()].tolist())
    assert drawn and validated and drawn.isdisjoint(validated)
    assert (drawn | validated) <= set(FIT.tolist()) and (drawn | validated).isdisjoint(HELD.tolist())


def test_a_budget_that_is_too_small_is_known_at_once(tiny_backbone: str) -> None:
    made, given = recipe("fomaml", tiny_backbone), training_set()
    with pytest.raises(BudgetExhausted):
        train_family(made, given, TimeBudget.of(0.0))


class TickingClock(FakeClock):
    """Every look at it takes a while."""

    def __init__(self, tick_s: float) -> None:
        super().__init__()
        self.tick_s = tick_s

    def __call__(self) -> float:
        self.now += self.tick_s
        return self.now


def train_for(seconds: float, backbone: str) -> TrainedLearner:
    """By a clock on which every look takes 0.2 s."""
    made = recipe("anil", backbone, max_steps=None)
    return train_family(made, training_set(), TimeBudget.of(seconds, TickingClock(0.2)))


def test_the_end_of_the_budget_leaves_a_valid_learner(tiny_backbone: str) -> None:
    fitted = train_for(60, tiny_backbone)
    assert fitted.validation["steps"] >= FIRST_STEPS
    _, episodes = held_out()
    for scores, labels in zip(answer(fitted).scores, episodes.labels, strict=True):
        assert bool(scores[labels >= 0].isfinite().any(-1).all())


def test_a_budget_that_ends_before_the_first_steps_says_so(tiny_backbone: str) -> None:
    with pytest.raises(BudgetExhausted):
        train_for(3, tiny_backbone)


def test_steps_that_take_too_long_are_given_up(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    made = recipe("fomaml", tiny_backbone, max_steps=None)
    step = Training._step

    def slow(training: Training) -> None:
        clock.now += 5
        step(training)
        training._schedule.last_step_s = 5

    monkeypatch.setattr(Training, "_step", slow)
    with pytest.raises(BudgetExhausted, match="a training step takes 5"):
        train_family(made, training_set(), TimeBudget.of(60, clock))


def test_a_training_without_numbers_is_an_error_of_its_own(tiny_backbone: str) -> None:
    made = recipe("fomaml", tiny_backbone, learning_rate=1e30, validate_every=100)
    with pytest.raises(Diverged, match="lower the learning rate"):
        train_family(made, training_set(), TimeBudget.of(60))


def test_memory_that_runs_out_is_a_budget_that_ends(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(_: Training) -> None:
        raise MemoryError

    monkeypatch.setattr(Training, "run", hungry)
    with pytest.raises(BudgetExhausted, match="out of memory"):
        train_family(recipe("fomaml", tiny_backbone), training_set(), TimeBudget.of(60))


def test_too_few_classes_and_unknown_names_are_told(tiny_backbone: str) -> None:
    given = training_set()
    few = np.flatnonzero(np.isin(given.labels, FIT[:2]))
    small = replace(given, images=PreparedImages(given.images.images[few]), labels=given.labels[few])
    with pytest.raises(DataError, match="no episode can be drawn"):
        train_family(recipe("fomaml", tiny_backbone), small, TimeBudget.of(60))
    nothing = replace(given, images=PreparedImages(POOL.images[:0]), labels=POOL.labels[:0])
    with pytest.raises(DataError, match="no images"):
        train_family(recipe("fomaml", tiny_backbone), nothing, TimeBudget.of(60))
    with pytest.raises(ConfigError, match="unknown family `mamml`; known: reptile"):
        find_family("mamml")


def test_a_trunk_runs_over_every_image_once_for_all_families(tiny_backbone: str) -> None:
    shallow = recipe("pmf", tiny_backbone)
    more = shallow.encoder.model_copy(update={"trainable": 3})
    recipes = recipe("fomaml", tiny_backbone), shallow, shallow.model_copy(update={"encoder": more})
    one, other, deeper = (TrainedLearner.untrained(made).learner.encoder for made in recipes)
    images, _ = held_out()
    first = images.inputs_for(one)
    assert images.inputs_for(other) is first
    changed = images.inputs_for(deeper)
    assert changed is not first and changed.shape != first.shape
    images.image_s(one)
    with pytest.raises(BudgetExhausted, match="to prepare"):
        images.inputs_for(one, TimeBudget.of(1e-6))
    assert torch.equal(images.inputs_for(one), first)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tail_of_a_transformer_is_a_block_and_not_its_norm_alone(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = BackboneSpec("tiny_vit", "test_vit", 0.4, 64, "none", patch_px=16)
    monkeypatch.setitem(CATALOGUE, spec.name, spec)
    monkeypatch.setattr(build, "load_pretrained", lambda *_: None)
    made = recipe(family, spec.name, max_steps=2)
    assert made.encoder.trainable == 2
    if family == "adapters":
        with pytest.raises(ConfigError, match="no convolutions"):
            train_family(made, training_set(), TimeBudget.of(60))
    else:
        assert train_family(made, training_set(), TimeBudget.of(60)).validation["steps"] == 2


def test_every_family_can_be_named_in_the_settings() -> None:
    assert set(FAMILIES) == set(FAMILIES_IN_ORDER)
