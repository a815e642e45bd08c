"""What the learners of MetaDelta and MetaDelta++ do beyond what all transfer learners do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from learner_cases import features, held_out, image_episode, pool_source, red_pool
from synthetic import FakeClock, colour_pool
from transfer_cases import SMALLEST, begun, built

from autometa.core.budget import UNLIMITED, Limits, MemoryBudget, TimeBudget
from autometa.core.errors import DataError
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import Answer
from autometa.heads import FeatureBatch
from autometa.heads.ot_map import ot_map, without_transport
from autometa.heads.soft_kmeans import soft_kmeans, to_nearest_mean
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.trained import TrainedLearner
from autometa.learners.training import Training
from autometa.learners.training_settings import TrainingSettings
from autometa.learners.transfer.classification import CLASSIFICATION_SPEC
from autometa.systems.single_learner import SingleLearnerSystem

TEST = EpisodeSpec(ways=(5, 5), shots=(1, 3), queries_per_class=4)
OT: dict[str, Any] = {"sharpness": 10.0, "step": 0.2}


def training_of(name: str, options: dict[str, Any] | None = None, **settings: Any) -> Training:
    pool = red_pool()
    encoder = SMALLEST.model_copy(update={"px": 8, "pools": 2})
    return Training(
        build_learner(Recipe(learner=name, encoder=encoder, options=options or {})),
        pool_source(pool, CLASSIFICATION_SPEC, classes=10),
        held_out(pool, TEST, 10, episodes=8),
        TrainingSettings(**settings),
        UNLIMITED,
    )


def even_batch() -> FeatureBatch:
    return features(ways=3, shots=2, queries=4)


@pytest.mark.medium
def test_the_classifier_has_a_rate_of_its_own() -> None:
    training = training_of(
        "metadelta_plus_plus", learning_rate=1e-4, classifier_rate=1e-3, max_steps=10, validate_every=10
    )
    training._start()
    training._step()
    body, head = training._optimizer.param_groups
    assert (body["lr"], head["lr"]) == pytest.approx((1e-4, 1e-3))
    assert {id(p) for p in body["params"]} == {id(p) for p in training.learner.parameters()}
    assert [tuple(p.shape) for p in head["params"]] == [(8, 16), (8,), (8, 8), (8,), (10, 8), (10,)]
    training._step()
    assert head["lr"] == pytest.approx(10 * body["lr"]) and head["lr"] < 1e-3
    assert [g["lr"] for g in begun_with_one_rate()] == pytest.approx([1e-3, 1e-3])


def begun_with_one_rate() -> list[dict[str, Any]]:
    training = training_of("finetune", learning_rate=1e-3)
    training._start()
    return training._optimizer.param_groups


@pytest.mark.parametrize("name", ["metadelta", "metadelta_plus_plus"])
def test_the_untouched_body_is_kept_where_tuning_never_helps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training_of(name, max_steps=6, validate_every=2, learning_rate=0.05)
    body = training.learner.encoder
    before = {n: t.clone() for n, t in body.state_dict().items()}
    measured: list[float] = []

    def validate(self: Any, inputs: Any, validation: Any) -> Answer:
        untouched = all(torch.equal(t, before[n]) for n, t in self.encoder.state_dict().items())
        measured.append(0.6 if untouched else 0.5)
        return Answer((), np.full(len(validation.episodes), measured[-1]))

    monkeypatch.setattr(type(training.learner), "validate", validate)
    record = training.run()
    assert measured[0] == 0.6 and 0.5 in measured, "the untouched body is measured first"
    assert record.steps == 6 and record.best is record.untrained
    assert all(torch.equal(t, before[n]) for n, t in body.state_dict().items())


def test_queries_are_transported_where_they_are_declared_balanced() -> None:
    learner, batch = built("metadelta_plus_plus"), even_batch()
    learner.declare_balance(balanced=True)
    torch.testing.assert_close(learner.compare(batch), ot_map(batch, **OT))
    mostly_one = replace(batch, query=batch.query[:, :7])
    torch.testing.assert_close(learner.compare(mostly_one), ot_map(mostly_one, **OT))
    learner.declare_balance(balanced=False)
    torch.testing.assert_close(learner.compare(mostly_one), without_transport(mostly_one, **OT))
    few = replace(batch, query=batch.query[:, :2])
    learner.declare_balance(balanced=True)
    torch.testing.assert_close(learner.compare(few), without_transport(few, **OT))


def test_bundles_answer_as_the_published_code_where_they_say_so() -> None:
    batch = even_batch()
    transported: Any = built("metadelta_plus_plus", cosine=True)
    transported.declare_balance(balanced=True)
    torch.testing.assert_close(transported.compare(batch), ot_map(batch, **OT, cosine=True))
    assert not torch.allclose(ot_map(batch, **OT, cosine=True), ot_map(batch, **OT), atol=1e-3)
    refined: Any = built("metadelta", renormalise=True)
    expected = soft_kmeans(batch, sharpness=5.0, renormalise=True)
    torch.testing.assert_close(refined.compare(batch), expected)
    assert not torch.allclose(expected, soft_kmeans(batch, sharpness=5.0), atol=1e-3)


def test_what_is_declared_of_queries_is_kept_with_the_learner(tmp_path: Path) -> None:
    limits = Limits(TimeBudget.of(0.0), TimeBudget.of(0.0), MemoryBudget(8 * 2**30))
    for balanced in (True, False):
        test = TestSpec(4, replace(TEST, balanced=balanced), 60, "within-domain")
        recipe = Recipe(learner="metadelta_plus_plus", encoder=SMALLEST)
        training = SingleLearnerSystem(recipe, test, limits, tmp_path, lambda _: None)
        training.bootstrap()
        training.run(colour_pool(classes=8))
        learner: Any = TrainedLearner.load(tmp_path).learner
        assert bool(learner.balanced) == balanced


def test_the_rotation_loss_asks_for_class_and_turn() -> None:
    learner = built("metadelta", turns=4, rotation=0.25)
    begun(learner)  # 12 training classes: 3 in 4 turns
    found = torch.randn(6, learner.encoder.width)
    logits = learner.class_logits(found)
    assert logits.shape == (6, 3 + 4)
    numbers = torch.tensor([0, 1, 2, 3, 7, 11])
    expected = 0.75 * F.cross_entropy(logits[:, :3], torch.tensor([0, 1, 2, 0, 1, 2]))
    expected = expected + 0.25 * F.cross_entropy(logits[:, 3:], torch.tensor([0, 0, 0, 1, 2, 3]))
    torch.testing.assert_close(learner.class_loss(found, numbers), expected)
    with pytest.raises(DataError, match="13 training classes are not as many for each of 4 turns"):
        learner.begin_training(13)


def test_the_nearest_class_mean_answers_until_a_sharpness_is_chosen() -> None:
    learner, batch = build_learner(Recipe(learner="metadelta", encoder=SMALLEST)), even_batch()
    cheap: Any = learner
    assert torch.equal(cheap.compare(batch).argmax(-1), to_nearest_mean(batch, sharpness=1.0).argmax(-1))
    torch.testing.assert_close(built("metadelta").compare(batch), soft_kmeans(batch, sharpness=5.0))


def choose_among(
    monkeypatch: pytest.MonkeyPatch, accuracies: dict[float, float], budget: TimeBudget = UNLIMITED
) -> tuple[float, str]:
    training = training_of("metadelta", {"sharpnesses": (2.5, 10.0)})
    learner: Any = training.learner

    def compared(self: Any, batches: Any, validation: Any) -> Answer:
        return Answer((), np.full(len(validation.episodes), accuracies[float(self.sharpness)]))

    monkeypatch.setattr(type(learner), "answer_embedded", compared)
    message = learner.choose_options(training.validation.inputs, training.validation.episodes, budget)
    return float(learner.sharpness), message


def test_the_most_accurate_sharpness_is_chosen_and_none_where_none_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen, message = choose_among(monkeypatch, {0.0: 0.5, 2.5: 0.7, 10.0: 0.6})
    assert (chosen, message) == (2.5, "soft k-means of sharpness 2.5: 70.0 on 8 validation episodes")
    chosen, message = choose_among(monkeypatch, {0.0: 0.5, 2.5: 0.5, 10.0: 0.4})
    assert chosen == 0.0 and message.startswith("nearest class mean: 50.0")


def test_without_time_to_choose_it_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, message = choose_among(
        monkeypatch, {0.0: 0.5, 2.5: 0.4, 10.0: 0.9}, TimeBudget.of(0.0, FakeClock())
    )
    assert (chosen, message) == (2.5, "soft k-means of sharpness 2.5: no time is left to choose")


def test_the_slowest_copy_refines_class_means_and_leaves_the_learner_alone() -> None:
    learner = built("metadelta")
    learner.sharpness.zero_()
    slow = learner.slowest()
    assert float(slow.sharpness) == 20.0 and float(learner.sharpness) == 0.0
    assert next(slow.parameters()) is next(learner.parameters())
    assert slow(image_episode(3, 1, 2)).shape == (1, 6, 3)
