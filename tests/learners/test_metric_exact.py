"""Prototypical, Gaussian, semi-supervised and relation networks against formulas written by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from learner_cases import PX, WIDTH, built, features, image_episode, query_labels
from metric_cases import (
    Array,
    arrays,
    means_of,
    probabilities,
    softmax,
    squared_distances,
    unlabelled_like,
)

from autometa.core.errors import ConfigError
from autometa.heads import FeatureBatch
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import InputEpisodes
from autometa.learners.metric.relation import Relation
from autometa.learners.recipe import Recipe, build_learner

WIDE = EncoderSpec(network="conv4", px=PX, channels=130)
"""Maps with more channels than are compared as they are."""


def test_two_prototypes_are_a_linear_classifier() -> None:
    batch = features(2, 3, 4)
    means, query = means_of(batch), arrays(batch)[2]
    linear = softmax(query @ (2 * means).T - (means**2).sum(-1))
    np.testing.assert_allclose(probabilities(built("prototypical"), batch), linear, atol=1e-5)


def test_prototypical_takes_the_squared_distance() -> None:
    batch = features(4, 3, 2)
    distance = squared_distances(arrays(batch)[2], means_of(batch))
    ours = probabilities(built("prototypical"), batch)
    np.testing.assert_allclose(ours, softmax(-distance), atol=1e-5)
    assert np.abs(ours - softmax(-np.sqrt(distance))).max() > 0.05


def test_prototypical_by_the_cosine_has_a_learned_scale() -> None:
    learner = built("prototypical", metric="cosine", scale=3.0)
    batch = features(4, 3, 2)
    means, query = means_of(batch), arrays(batch)[2]
    cosine = (query @ means.T) / np.linalg.norm(query, axis=1)[:, None] / np.linalg.norm(means, axis=1)
    np.testing.assert_allclose(probabilities(learner, batch), softmax(3 * cosine), atol=1e-5)
    learner.embedded_loss(batch, None, query_labels(batch)).backward()
    assert learner.log_scale.grad.abs() > 0


def test_the_loss_is_the_mean_negative_log_likelihood_of_real_queries() -> None:
    batch = features(3, 2, 2)
    labels = query_labels(batch)
    labels[0, 1] = -1
    p = probabilities(built("prototypical"), batch)
    counted = [0, 2, 3, 4, 5]
    expected = -np.log(p[counted, labels[0, counted]]).mean()
    loss = built("prototypical").embedded_loss(batch, None, labels)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def gaussian_by_loops(batch: FeatureBatch, weight: Array, bias: Array) -> Array:
    support, labels, query = arrays(batch)
    scores = np.zeros((len(query), int(batch.ways)))
    for c in range(int(batch.ways)):
        own = support[labels == c]
        certain = np.stack([1 + np.log1p(np.exp(weight @ image + bias)) * np.ones(WIDTH) for image in own])
        prototype = (certain * own).sum(0) / certain.sum(0)
        inverse = np.diag(certain.sum(0) / len(own))
        for j, image in enumerate(query):
            scores[j, c] = -(image - prototype) @ inverse @ (image - prototype)
    return scores


@pytest.mark.parametrize("covariance", ["radius", "diagonal"])
@pytest.mark.parametrize("shots", [1, 4])
def test_gaussian_prototypical_equals_a_loop(covariance: str, shots: int) -> None:
    learner = built("gaussian_prototypical", covariance=covariance)
    torch.nn.init.normal_(cast(torch.Tensor, learner.precision.weight))
    batch = features(3, shots, 3)
    weight, bias = (p.detach().double().numpy() for p in learner.precision.parameters())
    ours = probabilities(learner, batch)
    np.testing.assert_allclose(ours, softmax(gaussian_by_loops(batch, weight, bias)), atol=1e-5)


def test_gaussian_prototypical_starts_as_scaled_euclidean() -> None:
    learner = built("gaussian_prototypical")
    for parameter in learner.precision.parameters():
        torch.nn.init.zeros_(parameter)
    batch = features(3, 2, 3)
    scores = -(1 + np.log(2)) * squared_distances(arrays(batch)[2], means_of(batch))
    np.testing.assert_allclose(probabilities(learner, batch), softmax(scores), atol=1e-5)


def refined_by_loops(batch: FeatureBatch, extra: Array, rounds: int) -> Array:
    support, labels, query = arrays(batch)
    ways = int(batch.ways)
    prototypes = means_of(batch)
    for _ in range(rounds):
        share = softmax(-squared_distances(extra, prototypes))
        moved = []
        for c in range(ways):
            total, weight = support[labels == c].sum(0), float((labels == c).sum())
            for image, z in zip(extra, share, strict=True):
                total, weight = total + z[c] * image, weight + z[c]
            moved.append(total / weight)
        prototypes = np.stack(moved)
    return softmax(-squared_distances(query, prototypes))


@pytest.mark.parametrize("rounds", [1, 3])
def test_semi_supervised_equals_a_loop(rounds: int) -> None:
    batch = features(3, 2, 3)
    extra = unlabelled_like(batch, 10)
    expected = refined_by_loops(batch, extra.features[0].double().numpy(), rounds)
    learner = built("semi_supervised_prototypical", rounds=rounds)
    np.testing.assert_allclose(probabilities(learner, batch, extra), expected, atol=1e-5)
    assert np.abs(expected - probabilities(learner, batch)).max() > 0.01


def test_semi_supervised_leaves_a_share_of_far_images_to_a_cluster_at_the_origin() -> None:
    batch, radius = features(3, 2, 3), 3.0
    extra = unlabelled_like(batch, 10)
    learner: Any = built("semi_supervised_prototypical", distractors=True)
    assert learner.log_radius.exp().item() == pytest.approx(100)
    with torch.no_grad():
        learner.log_radius.fill_(np.log(radius))
    support, labels, query = arrays(batch)
    images, prototypes = extra.features[0].double().numpy(), means_of(batch)
    distances = squared_distances(images, prototypes)
    of_none = (images**2).sum(1, keepdims=True) / radius**2 + np.log(radius)
    share = softmax(-np.concatenate([distances, of_none], axis=1))[:, :3]
    assert 0.05 < share.sum(1).mean() < 0.95
    moved = [
        (support[labels == c].sum(0) + share[:, c] @ images) / ((labels == c).sum() + share[:, c].sum())
        for c in range(3)
    ]
    expected = softmax(-squared_distances(query, np.stack(moved)))
    np.testing.assert_allclose(probabilities(learner, batch, extra), expected, atol=1e-5)
    loss = learner.compare(batch, extra).log_softmax(-1)[..., 0].mean()
    assert abs(float(torch.autograd.grad(loss, learner.log_radius)[0])) > 0
    assert learner.rate_factors() == {"log_radius": 20.0}
    assert not any("radius" in name for name in built("semi_supervised_prototypical").state_dict())


def test_semi_supervised_ignores_padding_among_the_unlabelled() -> None:
    batch = features(3, 2, 3)
    extra = unlabelled_like(batch, 6)
    real = torch.tensor([[True, True, False, True, False, True]])
    learner = built("semi_supervised_prototypical")
    expected = refined_by_loops(batch, extra.features[real].double().numpy(), 1)
    np.testing.assert_allclose(probabilities(learner, batch, replace(extra, real=real)), expected, atol=1e-5)


def test_semi_supervised_without_refinement_is_prototypical() -> None:
    batch = features(3, 2, 3)
    plain = probabilities(built("prototypical"), batch)
    none = built("semi_supervised_prototypical", rounds=0, transductive=True)
    np.testing.assert_allclose(probabilities(none, batch, unlabelled_like(batch, 4)), plain, atol=1e-6)
    np.testing.assert_allclose(probabilities(built("semi_supervised_prototypical"), batch), plain, atol=1e-6)


def test_semi_supervised_may_refine_on_real_queries() -> None:
    batch = features(3, 2, 3)
    real = torch.arange(9)[None] % 3 > 0
    learner = built("semi_supervised_prototypical", transductive=True)
    expected = refined_by_loops(batch, batch.query[real].double().numpy(), 1)
    np.testing.assert_allclose(probabilities(learner, replace(batch, query_real=real)), expected, atol=1e-5)


def test_semi_supervised_uses_the_unlabelled_images_of_an_episode() -> None:
    episodes = image_episode(3, 1, 2)
    others = image_episode(3, 2, 1, seed=7).support
    learner = built("semi_supervised_prototypical")
    with torch.no_grad():
        batch, _ = learner.embed_episodes(episodes)
        extra = learner.embed(others[0]).double().numpy()
        ours = learner(replace(episodes, unlabelled=others))[0].softmax(-1)
    np.testing.assert_allclose(ours, refined_by_loops(batch, extra, 1), atol=1e-4)


def test_a_negative_number_of_rounds_is_refused() -> None:
    with pytest.raises(ConfigError, match="rounds = -1"):
        built("semi_supervised_prototypical", rounds=-1)


def relation_by_loops(learner: Relation, episodes: InputEpisodes, merge: str) -> torch.Tensor:
    """Logits of what is compared, [q, n]."""
    maps, asked = (learner.reduce(learner.encoder(e[0])) for e in (episodes.support, episodes.query))
    table = torch.zeros(len(asked), int(episodes.ways))
    for c in range(int(episodes.ways)):
        own = maps[episodes.support_labels[0] == c]
        merged = own.sum(0) if merge == "sum" else own.mean(0)
        for j, query in enumerate(asked):
            blocks = learner.blocks(torch.cat([merged, query])[None])
            table[j, c] = learner.score(blocks.mean((2, 3)))[0, 0]
    return table


@pytest.mark.parametrize("merge", ["sum", "mean"])
def test_relation_compares_the_merged_support_maps(merge: str) -> None:
    learner, episodes = built("relation", merge=merge), image_episode(3, 3, 2)
    assert isinstance(learner, Relation)
    assert learner.encoder.shape == (8, 4, 4)
    with torch.no_grad():
        by_hand = relation_by_loops(learner, episodes, merge).sigmoid()
        torch.testing.assert_close(learner(episodes)[0].exp(), by_hand, atol=1e-5, rtol=1e-4)
        loss = (by_hand - torch.eye(3).repeat_interleave(2, 0)).square().mean()
        torch.testing.assert_close(learner.loss(episodes), loss)


def test_relation_may_choose_among_the_classes() -> None:
    learner, episodes = built("relation", loss="cross_entropy", encoder=WIDE), image_episode(3, 3, 2)
    assert isinstance(learner, Relation)
    with torch.no_grad():
        by_hand = relation_by_loops(learner, episodes, "sum")
        torch.testing.assert_close(learner(episodes)[0], by_hand, atol=1e-4, rtol=1e-4)
        loss = -by_hand.log_softmax(1).gather(1, torch.arange(3).repeat_interleave(2)[:, None]).mean()
        torch.testing.assert_close(learner.loss(episodes), loss)


def test_relation_reduces_wide_maps_to_normalised_ones() -> None:
    learner, plain = (built("relation", reduction=name, encoder=WIDE) for name in ("normalised", "plain"))
    assert isinstance(learner, Relation) and isinstance(plain, Relation)
    assert learner.maps == plain.maps == (64, 4, 4)
    images = image_episode(4, 4, 4).support[0]
    with torch.no_grad():
        maps = learner.train().embed(images).unflatten(1, learner.maps)
        projected = learner.reduce[0](learner.encoder(images))
        centred = projected - projected.mean((0, 2, 3), keepdim=True)
        centred /= projected.var((0, 2, 3), keepdim=True, unbiased=False).add(1e-5).sqrt()
        expected = centred + learner.reduce[1].bias[:, None, None]
        torch.testing.assert_close(maps, expected, atol=1e-4, rtol=1e-4)
        assert isinstance(plain.reduce, torch.nn.Conv2d)
    narrow = built("relation", reduction="normalised")
    assert isinstance(narrow, Relation) and isinstance(narrow.reduce, torch.nn.Identity)


def test_relation_on_normalised_maps_starts_as_the_nearest_mean() -> None:
    recipes = [
        Recipe(learner="relation", encoder=WIDE, options={"merge": "mean", "reduction": name})
        for name in ("normalised", "plain")
    ]
    batch = features(8, 3, 10, d=64 * 16)
    labels, right = query_labels(batch)[0], []
    for recipe in recipes:
        learner = build_learner(recipe).eval()
        assert isinstance(learner, Relation)
        with torch.no_grad():
            right.append(float((learner.compare(batch)[0].argmax(1) == labels).float().mean()))
    assert right[0] > 0.95 and right[1] < 0.6


def test_relation_loss_counts_only_pairs_that_there_are() -> None:
    learner = built("relation")
    batch, _ = learner.embed_episodes(image_episode(3, 1, 2))
    labels = torch.tensor([[0, -1, 1, 1, 2, -1]])
    wide = FeatureBatch(
        batch.support.expand(2, -1, -1),
        torch.tensor([[0, 1, 2], [0, 1, -1]]),
        batch.query.expand(2, -1, -1),
        torch.tensor([3, 2]),
        labels.expand(2, -1) >= 0,
    ).cleaned()
    both = torch.stack([labels[0], torch.tensor([0, -1, 1, 1, -1, -1])])
    with torch.no_grad():
        p = learner.compare(wide).exp()
        errors = [
            (p[e, j, c] - float(both[e, j] == c)) ** 2
            for e, ways in enumerate((3, 2))
            for j in range(6)
            for c in range(ways)
            if both[e, j] >= 0
        ]
        torch.testing.assert_close(learner.embedded_loss(wide, None, both), torch.stack(errors).mean())


def test_relation_in_training_does_not_see_padding() -> None:
    learner = built("relation")
    batch, _ = learner.embed_episodes(image_episode(3, 1, 2))
    labels = query_labels(batch)
    more = torch.cat([labels, torch.full_like(labels, -1)], dim=1)
    query = torch.cat([batch.query, torch.zeros_like(batch.query)], dim=1)
    padded = replace(batch, query=query, query_real=more >= 0)
    with torch.no_grad():
        alone = learner.train().embedded_loss(batch, None, labels)
        torch.testing.assert_close(learner.embedded_loss(padded, None, more), alone)
