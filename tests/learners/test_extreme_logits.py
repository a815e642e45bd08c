"""Where probabilities are too small, or too close to one, for float32: answers keep the order of the logits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from learner_cases import METRIC, TINY, built, image_episode
from memory_cases import MEMORY

from autometa.heads import HEADS, FeatureBatch
from autometa.learners.memory.base import MemoryLearner, Sequences
from autometa.learners.metric.matching import Matching
from autometa.learners.metric.relation import Relation
from autometa.learners.metric.siamese import Siamese
from autometa.learners.recipe import Recipe
from autometa.learners.trained import TrainedLearner
from autometa.model.trained_ensemble import TrainedMember

WAYS = 4
ORDER = torch.tensor([2.0, 1.0, 3.0, 0.0])
"""Classes by how likely they are, the likeliest the largest."""


def ladder(offset: float, shots: int = 2) -> FeatureBatch:
    """A query at 0 and support images of width 1 at |x| = offset - ORDER, a little apart within a class."""
    places = (offset - ORDER).repeat_interleave(shots) + 0.01 * (torch.arange(WAYS * shots) % shots)
    labels = torch.arange(WAYS).repeat_interleave(shots)
    return FeatureBatch(
        places[None, :, None], labels[None], torch.zeros(1, 1, 1), torch.tensor([WAYS]), query_real=None
    )


def siamese(slope: float, offset: float) -> Siamese:
    learner = built("siamese")
    assert isinstance(learner, Siamese)
    learner.same = torch.nn.Linear(1, 1)
    with torch.no_grad():
        learner.same.weight.fill_(slope)
        learner.same.bias.fill_(offset)
    return learner


@pytest.mark.parametrize("height", [-1000.0, -100.0, -40.0, 0.0, 20.0, 40.0])
@pytest.mark.parametrize("shots", [1, 3])
def test_siamese_keeps_the_order_of_its_logits(height: float, shots: int) -> None:
    scores = siamese(-1.0, height + 10).compare(ladder(10.0, shots)).detach()[0, 0]
    assert scores.argsort().equal(ORDER.argsort()), scores
    assert torch.isfinite(scores).all()
    if height < -20:
        np.testing.assert_allclose((scores - scores[0]).numpy(), (ORDER - ORDER[0]).numpy(), atol=1e-3)


def test_siamese_is_the_log_of_the_mean_probability_everywhere() -> None:
    logits = torch.linspace(-60, 40, 40).unflatten(0, (20, 2))
    learner = siamese(1.0, 0.0)
    learner._compare_pairs = lambda one, two: two[..., 0]
    for pair in logits:
        batch = FeatureBatch(
            pair[None, :, None], torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 1, 1), torch.tensor([1])
        )
        of_two = pair.double().sigmoid().mean()
        expected = torch.log(of_two) if of_two < 0.5 else torch.log1p(-(-pair.double()).sigmoid().mean())
        torch.testing.assert_close(learner.compare(batch).double().flatten()[0], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("height", [-1000.0, -40.0, 0.0, 40.0])
def test_relation_keeps_the_order_of_its_logits(height: float, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = built("relation")
    assert isinstance(learner, Relation)
    monkeypatch.setattr(learner, "_compute_logits", lambda batch: (height + ORDER)[None, None])
    scores = learner.compare(ladder(1.0))[0, 0]
    assert scores.argsort().equal(ORDER.argsort()), scores


def test_relation_learns_by_the_same_probabilities() -> None:
    learner, episode = built("relation"), image_episode(3, 2, 2)
    batch, _ = learner.embed_episodes(episode)
    r = learner.compare(batch).exp()
    target = F.one_hot(episode.query_labels, 3)
    torch.testing.assert_close(
        learner.embedded_loss(batch, None, episode.query_labels), (r - target).square().mean()
    )


def cosines(scale: float) -> tuple[Matching, FeatureBatch]:
    """Matching at a large scale; the cosines of a query with the classes are in `ORDER`."""
    learner = built("matching", scale=scale)
    assert isinstance(learner, Matching)
    angles = (4 - ORDER) * 0.5
    support = torch.stack([angles.cos(), angles.sin()], dim=-1)
    query = torch.tensor([[[1.0, 0.0]]])
    return learner, FeatureBatch(support[None], torch.arange(WAYS)[None], query, torch.tensor([WAYS]))


@pytest.mark.parametrize("scale", [10.0, 100.0, 1000.0])
def test_matching_keeps_the_order_of_its_attention(scale: float) -> None:
    learner, batch = cosines(scale)
    scores = learner.compare(batch)[0, 0]
    assert scores.argsort().equal(ORDER.argsort()), scores
    loss = -scores[int(ORDER.argmin())]
    (gradient,) = torch.autograd.grad(loss, learner.log_scale)
    assert torch.isfinite(gradient) and gradient > 0  # a confident error still teaches


@pytest.mark.parametrize("sharpness", [20.0, 1000.0])
def test_neighbours_keep_the_order_of_their_votes(sharpness: float) -> None:
    _, batch = cosines(1.0)
    scores = HEADS["knn"].function(batch, sharpness=sharpness)[0, 0]
    assert scores.argsort().equal(ORDER.argsort()), scores


@pytest.mark.parametrize("name", MEMORY)
def test_memories_keep_the_order_of_their_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = built(name)
    assert isinstance(learner, MemoryLearner)
    step = torch.linspace(0, -2000, learner.max_ways)

    def read(sequences: Sequences) -> torch.Tensor:
        return step.expand(*sequences.query.shape[:2], -1)

    monkeypatch.setattr(learner, "read", read)
    monkeypatch.setattr(learner, "_assign_slots", lambda named, reading: torch.arange(WAYS)[None])
    scores = learner.compare(ladder(1.0))[0, 0]
    torch.testing.assert_close(scores, step[:WAYS])


def test_padding_and_absent_classes_count_for_nothing() -> None:
    values = torch.tensor([[[0.0, -300.0, -301.0, 5.0]], [[1.0, 2.0, 3.0, 4.0]]], requires_grad=True)
    labels = torch.tensor([[0, 1, 1, -1], [0, 1, 2, 2]])
    batch = FeatureBatch(torch.zeros(2, 4, 1), labels, torch.zeros(2, 1, 1), torch.tensor([2, 3]))
    sums = batch.logsumexp_by_class(values)
    expected = [[0.0, -300 + math.log1p(math.exp(-1)), -math.inf], [1.0, 2.0, 3 + math.log1p(math.e)]]
    torch.testing.assert_close(sums.detach()[:, 0], torch.tensor(expected))
    sums[batch.present[:, None, :]].sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad.sum(-1), torch.tensor([[2.0], [3.0]]))


@pytest.mark.parametrize("name", METRIC)
def test_probabilities_and_their_logarithms_are_the_same_answer(name: str) -> None:
    learner = TrainedLearner.untrained(Recipe(learner=name, encoder=TINY))
    episode = image_episode(3, 2, 2)
    predictor = learner.fit(episode.support[0].numpy(), episode.support_labels[0].numpy(), 3)
    log_p = predictor.log_probabilities(episode.query[0].numpy())
    np.testing.assert_allclose(predictor.predict(episode.query[0].numpy()), log_p.exp().numpy(), atol=1e-6)
    np.testing.assert_allclose(log_p.exp().sum(-1).numpy(), 1, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 500.0])
def test_a_trained_member_keeps_the_order_of_its_logits(temperature: float, tmp_path: Path) -> None:
    learner = TrainedLearner.untrained(Recipe(learner="prototypical", encoder=TINY))
    scores = 1000 * ORDER
    learner.learner.forward = lambda episodes: scores.expand(1, episodes.query.shape[1], -1)
    member = TrainedMember("prototypical", learner, temperature=temperature)
    images = np.zeros((WAYS, 3, 16, 16), np.uint8)
    predictor = learner.fit(images, np.arange(WAYS), WAYS)
    log_p = member.log_probabilities(predictor, images[:1])[0]
    torch.testing.assert_close(log_p, (scores.double() / temperature).log_softmax(-1))
    assert len(set(log_p.tolist())) == WAYS
    assert predictor.log_probabilities(images[:0]).shape == (0, WAYS)
