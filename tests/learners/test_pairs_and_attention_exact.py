"""Siamese and matching networks against formulas written by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from learner_cases import TINY, WIDTH, built, features, query_labels

from autometa.core.errors import ConfigError
from autometa.heads import FeatureBatch
from autometa.learners.encoder import EncoderSpec
from autometa.learners.metric.matching_fce import MatchingFCE
from autometa.learners.metric.siamese import Siamese
from autometa.learners.recipe import Recipe, build_learner


def close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(ours.detach(), expected.detach(), atol=1e-5, rtol=1e-4)


def attention_by_hand(query: torch.Tensor, support: torch.Tensor, scale: float) -> torch.Tensor:
    return (scale * F.cosine_similarity(query[:, None], support[None], dim=-1)).softmax(-1)


@pytest.mark.parametrize("shots", [1, 3])
def test_matching_sums_the_attention_of_each_class(shots: int) -> None:
    batch = features(4, shots, 2)
    attention = attention_by_hand(batch.query[0], batch.support[0], 1.0)
    per_class = attention.unflatten(-1, (4, shots)).sum(-1)
    scores = built("matching", scale=1.0, learn_scale=False).compare(batch)
    close(scores[0].exp(), per_class)


def test_one_shot_matching_is_attention_to_the_nearest_neighbour() -> None:
    batch = features(5, 1, 3)
    cosine = F.cosine_similarity(batch.query[0][:, None], batch.support[0][None], dim=-1)
    scores = built("matching").compare(batch)[0]
    assert scores.argmax(-1).equal(cosine.argmax(-1))
    close(scores.exp(), (10 * cosine).softmax(-1))


def test_the_scale_of_matching_is_learned_unless_it_is_not_to_be() -> None:
    batch = features(3, 2, 2)
    for learned in (True, False):
        learner = built("matching", scale=4.0, learn_scale=learned)
        assert learner.log_scale.requires_grad == learned
        close(cast(torch.Tensor, learner.log_scale), torch.tensor(math.log(4.0)))
    learner = built("matching")
    learner.embedded_loss(batch, None, query_labels(batch)).backward()
    assert learner.log_scale.grad.abs() > 0


def lstm_cell(
    x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, weights: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    of_input, of_state, input_bias, state_bias = weights
    gates = of_input @ x + input_bias + of_state @ h + state_bias
    take, forget, new, give = gates.chunk(4)
    c = forget.sigmoid() * c + take.sigmoid() * new.tanh()
    return give.sigmoid() * c.tanh(), c


def weights_of(module: torch.nn.Module, suffix: str) -> list[torch.Tensor]:
    return [getattr(module, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def contextual_support(learner: MatchingFCE, support: torch.Tensor) -> torch.Tensor:
    g = support.clone()
    for suffix, places in (("_l0", range(len(support))), ("_l0_reverse", reversed(range(len(support))))):
        h = c = torch.zeros(WIDTH)
        for i in places:
            h, c = lstm_cell(support[i], h, c, weights_of(learner.context, suffix))
            g[i] += h
    return g


def contextual_query(learner: MatchingFCE, query: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    h, r, c = torch.zeros(WIDTH), torch.zeros(WIDTH), torch.zeros(2 * WIDTH)
    for _ in range(learner.steps):
        output, c = lstm_cell(query, torch.cat([h, r]), c, weights_of(learner.reader, ""))
        h = output[:WIDTH] + query
        r = (g @ h).softmax(0) @ g
    return h


@pytest.mark.parametrize("steps", [1, 4])
def test_full_context_embeddings_equal_a_loop(steps: int) -> None:
    learner = built("matching_fce", steps=steps, scale=3.0)
    assert isinstance(learner, MatchingFCE)
    batch = features(3, 2, 2)
    with torch.no_grad():
        g = contextual_support(learner, batch.support[0])
        f = torch.stack([contextual_query(learner, query, g) for query in batch.query[0]])
        expected = attention_by_hand(f, g, 3.0).unflatten(-1, (3, 2)).sum(-1)
        close(learner.compare(batch)[0].exp(), expected)
    plain = built("matching", scale=3.0).compare(batch)[0].exp()
    assert not torch.allclose(plain, expected, atol=1e-3)


def test_full_context_shuffles_the_support_in_training() -> None:
    learner, batch = built("matching_fce").train(), features(4, 3, 2)
    with torch.no_grad():
        answers = [learner.compare(batch) for _ in range(3)]
    assert not torch.allclose(answers[0], answers[1], atol=1e-6)
    torch.manual_seed(5)
    with torch.no_grad():
        first = learner.compare(batch)
        torch.manual_seed(5)
        close(learner.compare(batch), first)


def test_full_context_in_training_keeps_images_with_their_labels() -> None:
    learner, batch = built("matching_fce").train(), features(4, 1, 1)
    with torch.no_grad():
        for parameter in [*learner.context.parameters(), *learner.reader.parameters()]:
            parameter.zero_()
        close(learner.compare(batch), built("matching").compare(batch))


def test_full_context_of_wide_embeddings_starts_from_them() -> None:
    learner = built("matching_fce", EncoderSpec(network="conv4", px=16, channels=65, pools=3))
    assert isinstance(learner, MatchingFCE)
    assert (learner.width, learner.hidden) == (260, 256)
    with torch.no_grad():
        learner.widen.weight.zero_()
        batch = features(3, 2, 2, d=260)
        close(learner.compare(batch), built("matching").compare(batch))


def test_full_context_needs_a_step() -> None:
    with pytest.raises(ConfigError, match="steps = 0"):
        built("matching_fce", steps=0)


def siamese_p(learner: Siamese, one: torch.Tensor, two: torch.Tensor) -> float:
    weight, bias = learner.same.weight[0], learner.same.bias[0]
    return float(((weight * (one - two).abs()).sum() + bias).detach().sigmoid())


def test_siamese_scores_a_class_by_the_mean_probability_of_its_pairs() -> None:
    learner, batch = built("siamese"), features(3, 4, 2)
    assert isinstance(learner, Siamese)
    table = torch.zeros(6, 3)
    for j, query in enumerate(batch.query[0]):
        for c in range(3):
            own = batch.support[0][batch.support_labels[0] == c]
            table[j, c] = sum(siamese_p(learner, query, image) for image in own) / len(own)
    close(learner.compare(batch)[0], table.log())


@pytest.mark.parametrize("shots", [1, 3])
def test_siamese_starts_as_the_nearest_mean_by_the_absolute_difference(shots: int) -> None:
    learner = build_learner(Recipe(learner="siamese", encoder=TINY))
    assert isinstance(learner, Siamese)
    batch = features(5, shots, 20, seed=3)
    difference = (batch.query[0][:, None] - batch.support[0]).abs().sum(-1)
    of_class = torch.stack([difference[:, batch.support_labels[0] == c].mean(1) for c in range(5)], dim=1)
    means = (batch.query[0][:, None] - batch.class_means[0]).abs().sum(-1)
    answers = learner.compare(batch)[0].argmax(1)
    nearest = of_class.argmin(1)
    assert len(nearest.unique()) == 5
    assert torch.equal(answers, nearest) if shots == 1 else (answers == nearest).float().mean() > 0.95
    assert (answers == means.argmin(1)).float().mean() > 0.95


def pairs_asked(learner: Siamese, batch: FeatureBatch, labels: torch.Tensor) -> torch.Tensor:
    """|f(x) - f(x')| of the pairs that a loss looks at."""
    seen: list[torch.Tensor] = []
    hook = learner.same.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    learner.embedded_loss(batch, None, labels)
    hook.remove()
    return torch.cat([pairs.reshape(-1, pairs.shape[-1]) for pairs in seen])


def numbered(ways: int, shots: int, queries: int) -> FeatureBatch:
    """Embeddings at zero for queries of class 0; the first coordinate of a support image is its class, the
    second its number."""
    batch = features(ways, shots, queries)
    support = torch.zeros_like(batch.support)
    support[0, :, 0], support[0, :, 1] = batch.support_labels[0], torch.arange(ways * shots)
    return replace(batch, support=support, query=torch.zeros_like(batch.query))


def test_siamese_trains_on_as_many_pairs_of_one_class_as_of_two() -> None:
    learner = built("siamese")
    assert isinstance(learner, Siamese)
    torch.manual_seed(0)
    batch = numbered(4, 3, 100)
    labels = torch.zeros(1, 400, dtype=torch.int64)
    pairs = pairs_asked(learner, batch, labels)
    assert len(pairs) == 800
    assert int((pairs[:, 0] == 0).sum()) == 400
    drawn = torch.bincount(pairs[:, 1].long(), minlength=12)
    assert (drawn[:3] > 100).all(), "any image of the own class"
    assert (drawn[3:] > 20).all(), "any image of any other class"


def test_siamese_loss_where_the_answer_is_known() -> None:
    learner, batch = built("siamese"), numbered(2, 1, 2)
    assert isinstance(learner, Siamese)
    with torch.no_grad():
        learner.same.weight.zero_()
        learner.same.weight[0, 0] = -3.0
        learner.same.bias.fill_(1.0)
    labels = torch.tensor([[0, 0, 1, -1]])
    # queries look like class 0: the first two are told well, the third is not, the last is padding
    own, other = math.log1p(math.exp(-1.0)), math.log1p(math.exp(-2.0))
    wrong = math.log1p(math.exp(2.0)) + math.log1p(math.exp(1.0))
    loss = learner.embedded_loss(batch, None, labels)
    assert loss.item() == pytest.approx((2 * (own + other) + wrong) / 6, rel=1e-5)


def test_siamese_may_train_on_its_class_probabilities() -> None:
    learner, batch = built("siamese", loss="cross_entropy"), numbered(2, 1, 2)
    assert isinstance(learner, Siamese)
    labels = torch.zeros(batch.query.shape[:2], dtype=torch.long)
    p = learner.compare(batch)[0].exp()
    expected = -(p[:, 0] / p.sum(1)).log().mean()
    assert learner.embedded_loss(batch, None, labels).item() == pytest.approx(expected.item(), rel=1e-5)


def test_siamese_never_pairs_with_padding_or_another_episode() -> None:
    learner = built("siamese")
    assert isinstance(learner, Siamese)
    support = torch.zeros(2, 4, WIDTH)
    support[0, 2:, 2], support[1, :, 3] = 1.0, 1.0
    labels = torch.tensor([[0, 1, -1, -1], [0, 1, 1, 0]])
    query = torch.zeros(2, 50, WIDTH)
    batch = FeatureBatch(support, labels, query, torch.tensor([2, 2]))
    asked = torch.arange(2).repeat(2, 25)
    asked[1, 10:] = -1
    pairs = pairs_asked(learner, batch, asked)
    assert len(pairs) == 2 * (50 + 10)
    assert (pairs[:, 2] == 0).all()
    assert int(pairs[:, 3].sum()) == 20
