"""How transfer learners are trained: by classification, by episodes and a choice, or not at all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from learner_cases import held_out, pool_source, red_pool
from synthetic import FakeClock, colour_pool
from transfer_cases import CLASSIFYING, SMALLEST, built

from autometa.core.budget import UNLIMITED, Limits, MemoryBudget, TimeBudget
from autometa.core.errors import ConfigError, DataError
from autometa.core.settings import validate_settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import Answer
from autometa.learners import episodes as sources
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import TaskSource, stack_episodes
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.trained import TrainedLearner
from autometa.learners.training import Training
from autometa.learners.training_settings import TrainingSettings
from autometa.systems.single_learner import SingleLearnerSystem

TEST = EpisodeSpec(ways=(5, 5), shots=(1, 3), queries_per_class=4)
CLASSIFICATION_SPEC = EpisodeSpec(ways=(10, 10), shots=(1, 1), queries_per_class=1)
SMALL = EncoderSpec(network="conv4", px=8, channels=8, pools=2)
FITTED = 10


def training_of(
    name: str,
    options: dict[str, Any] | None = None,
    budget: TimeBudget = UNLIMITED,
    episodes: int = 24,
    **settings: Any,
) -> Training:
    pool = red_pool()
    return Training(
        build_learner(Recipe(learner=name, encoder=SMALL, options=options or {})),
        pool_source(pool, CLASSIFICATION_SPEC if name in CLASSIFYING else TEST, classes=FITTED),
        held_out(pool, TEST, FITTED, episodes=episodes),
        TrainingSettings(**settings),
        budget,
    )


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("finetune", {"steps": 15}),
        ("imprinted", {}),
        ("simpleshot", {}),
        ("adapters", {"steps": 1}),
        ("metadelta", {}),
        ("metadelta_plus_plus", {}),
    ],
)
def test_classification_lifts_accuracy_on_classes_that_were_not_trained(
    name: str, options: dict[str, Any]
) -> None:
    training = training_of(name, options, episodes=12, max_steps=100, validate_every=100, learning_rate=0.01)
    record = training.run()
    assert record.best.mean > record.untrained.mean + 0.15


def test_the_state_that_is_kept_knows_nothing_of_the_classes(tmp_path: Path) -> None:
    training = training_of("simpleshot", max_steps=3, validate_every=1)
    training.checkpoint = tmp_path
    training.run()
    trained = TrainedLearner(Recipe(learner="simpleshot", encoder=SMALL), training.learner)
    (tmp_path / "learner").mkdir()
    trained.save(tmp_path / "learner")
    assert {n for n in training.learner.state_dict() if not n.startswith("encoder.")} == {"mean"}
    loaded = TrainedLearner.load(tmp_path / "learner").learner.state_dict()
    assert all(torch.equal(t, loaded[n]) for n, t in training.learner.state_dict().items())


def test_simpleshot_is_centred_by_training_images_before_and_after_training() -> None:
    training = training_of("simpleshot", max_steps=20, validate_every=20, learning_rate=0.01)
    training._start()
    learner: Any = training.learner
    shown = training._centring._inputs
    assert shown is not None and len(shown) >= 256

    def mean_now() -> torch.Tensor:
        with torch.no_grad():
            return learner.eval().embed(shown).mean(0)

    untrained = learner.mean.clone()
    torch.testing.assert_close(untrained, mean_now())
    record = training.run()
    assert record.steps == 20
    shown = training._centring._inputs  # `run` has started anew
    torch.testing.assert_close(learner.mean, mean_now(), atol=1e-4, rtol=0)
    assert float((learner.mean - untrained).abs().max()) > 1e-3


def test_simpleshot_of_version_0_2_0_loads_with_the_mean_that_it_had() -> None:
    learner: Any = training_of("simpleshot").learner
    state = learner.state_dict() | {"mean": torch.ones_like(learner.mean), "steps": torch.tensor(7)}
    learner.load_state_dict(state)
    assert torch.equal(learner.mean, torch.ones_like(learner.mean))


def test_a_source_that_does_not_number_classes_is_told() -> None:
    training = training_of("finetune")
    training.source = SimpleNamespace(draw=training.source.draw)
    with pytest.raises(DataError, match="Finetune learns to classify, but SimpleNamespace does not say"):
        training.run()


def test_episodes_of_a_pool_number_the_classes_that_they_are_drawn_from() -> None:
    pool = red_pool()
    source = pool_source(pool, EpisodeSpec((3, 5), (1, 3), 2), classes=FITTED)
    colours = [torch.from_numpy(pool.images[pool.labels == c]).float()[:, 0].mean() for c in range(FITTED)]
    for _ in range(10):
        drawn = source.draw(3)
        assert drawn.classes is not None and drawn.classes.shape == (3, int(drawn.ways[0]))
        numbers = drawn.classes.gather(1, drawn.query_labels)
        red = drawn.query.float()[:, :, 0].mean((2, 3))
        torch.testing.assert_close(red, torch.stack(colours)[numbers], atol=4.5, rtol=0)
    assert source.classes == FITTED


def task(classes: list[int], dataset: str = "D") -> Any:
    labels = torch.arange(len(classes))
    images = (torch.rand(len(classes), 3, 8, 8), labels, labels)
    return SimpleNamespace(
        support_set=images,
        query_set=images,
        num_ways=len(classes),
        original_class_idx=np.array(classes),
        dataset=dataset,
    )


def test_classes_of_a_stream_are_numbered_as_they_come() -> None:
    source = TaskSource([task([7, 3]), task([3, 5, 7]), task([3, 9], "E"), task([5, 8])], torch.from_numpy)
    numbers = source.draw(3).classes
    assert numbers is not None
    assert numbers.tolist() == [[0, 1, -1], [1, 2, 0], [3, 4, -1]]
    again = TaskSource([task([9, 7])], torch.from_numpy)
    again.restore(source.state())
    assert again.draw(1).to("cpu").classes.tolist() == [[5, 0]]


def test_a_stream_with_too_many_classes_or_none_named_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "STREAM_CLASSES", 3)
    with pytest.raises(DataError, match=r"more than 3 training classes; train on the pool \(data: pool\)"):
        TaskSource([task([1, 2]), task([3, 4])], torch.from_numpy).draw(2)
    unnamed = task([1, 2])
    del unnamed.original_class_idx
    known, unknown = (TaskSource([t], torch.from_numpy).draw(1) for t in (task([1, 2]), unnamed))
    assert unknown.classes is None and stack_episodes([known, unknown]).classes is None


def test_turned_images_are_of_classes_that_no_classifier_has() -> None:
    values = {"learner": "finetune", "augmentation": {"turn": True}}
    with pytest.raises(
        ConfigError, match=r"augmentation\.turn makes new classes, .*finetune.*leave turn out"
    ):
        validate_settings(Recipe, values, "recipe")
    validate_settings(Recipe, values | {"learner": "prototypical"}, "recipe")


@pytest.mark.medium
def test_what_has_nothing_to_train_is_measured_and_left_alone() -> None:
    training = training_of("train_from_scratch", {"steps": 3}, episodes=6)
    before = {n: t.clone() for n, t in training.learner.state_dict().items()}
    record = training.run()
    assert (record.steps, record.ended) == (0, "it has nothing to train")
    assert record.best is record.untrained
    assert all(torch.equal(t, before[n]) for n, t in training.learner.state_dict().items())


def choose_among(monkeypatch: pytest.MonkeyPatch, accuracies: dict[float, Any]) -> tuple[float, str]:
    """The rate that is chosen where validation gives these accuracies by rate."""
    training = training_of("pmf")
    learner: Any = training.learner

    def validate(self: Any, inputs: Any, validation: Any) -> Answer:
        rate = min(accuracies, key=lambda r: abs(r - float(self.rate)))
        return Answer((), np.resize(np.asarray(accuracies[rate]), len(validation.episodes)))

    monkeypatch.setattr(type(learner), "validate", validate)
    message = learner.choose_options(training.validation.inputs, training.validation.episodes, UNLIMITED)
    return round(float(learner.rate), 7), message


def test_the_rate_that_gains_most_on_validation_episodes_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    rate, message = choose_among(
        monkeypatch, {0.0: [0.5, 0.6], 1e-4: [0.6, 0.6], 1e-3: [0.7, 0.8], 1e-2: [0.1, 0.2]}
    )
    assert rate == 1e-3
    assert message == "rate 0.001: gains 20.0 ± 0.0 (24 validation episodes)"


def test_no_fine_tuning_stays_where_nothing_gains_more_than_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.tile([0.9, 0.12], 12)
    rate, message = choose_among(monkeypatch, {0.0: 0.5, 1e-4: 0.5, 1e-3: noise, 1e-2: 0.4})
    assert rate == 0.0
    assert "rate 0: no other rate gained" in message


def test_without_time_to_choose_nothing_is_fine_tuned() -> None:
    training = training_of("pmf", {"steps": 1})
    learner: Any = training.learner
    learner.rate.fill_(1e-2)
    clock = FakeClock()
    message = learner.choose_options(
        training.validation.inputs, training.validation.episodes, TimeBudget.of(0.0, clock)
    )
    assert float(learner.rate) == 0.0
    assert "time for 0 validation episodes, 8 are needed" in message


@pytest.mark.medium
def test_training_ends_with_the_choice_and_keeps_time_for_it(tmp_path: Path) -> None:
    lines: list[str] = []
    training = training_of("pmf", {"steps": 3, "rates": (0.0, 1e-2)}, max_steps=4, validate_every=2)
    training.report = lines.append
    training.run()
    assert lines[-1].startswith("rate 0") and "24 validation episodes" in lines[-1]
    late = training_of("pmf", budget=TimeBudget.of(100.0, FakeClock()))
    late._start()
    assert late._schedule.whole_s == pytest.approx(85.0)
    rate = training.learner.state_dict()["rate"]
    trained = TrainedLearner(Recipe(learner="pmf", encoder=SMALL), training.learner)
    trained.save(tmp_path)
    assert torch.equal(TrainedLearner.load(tmp_path).learner.state_dict()["rate"], rate)


def test_the_slowest_copy_fine_tunes_and_leaves_the_learner_alone() -> None:
    learner = built("pmf")
    learner.rate.zero_()
    slow = learner.slowest()
    assert float(slow.rate) == pytest.approx(1e-2)
    assert float(learner.rate) == 0.0
    assert next(slow.parameters()) is next(learner.parameters())


@pytest.mark.medium
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("train_from_scratch", "pool"),
        ("finetune", "pool"),
        ("simpleshot", "stream"),
        ("pmf", "pool"),
        ("metadelta_plus_plus", "pool"),
    ],
)
def test_a_meta_training_ends_with_a_learner_on_disk(name: str, data: Any, tmp_path: Path) -> None:
    options = {"train_from_scratch": {"steps": 5}, "pmf": {"steps": 2}, "finetune": {"steps": 10}}.get(
        name, {}
    )
    settings = TrainingSettings(max_steps=10, validate_every=5, meta_batch=2)
    recipe = Recipe(
        learner=name,
        encoder=SMALLEST,
        options=options,
        training=settings,
        data=data,
        validation_episodes=12,
    )
    limits = Limits(TimeBudget.of(60.0), TimeBudget.of(90.0), MemoryBudget(8 * 2**30))
    test = TestSpec(4, EpisodeSpec((2, 4), (1, 2), 2), 60, "within-domain")
    lines: list[str] = []
    training = SingleLearnerSystem(recipe, test, limits, tmp_path, lines.append, start_s=1.0)
    training.bootstrap()
    pool = colour_pool(classes=16)
    fitted = training.run(pool, lambda n: (task([n % 3, 5, 7 + n % 2]) for _ in range(min(n, 100))))
    assert fitted.validation["stage"] == "final", lines
    images, labels = pool.images[:28:2], pool.labels[:28:2]
    answers = [t.fit(images, labels, 2).predict(images) for t in (fitted, TrainedLearner.load(tmp_path))]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)
