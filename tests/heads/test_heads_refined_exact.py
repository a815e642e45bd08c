"""Heads that compare with single images or move class means, against NumPy and autograd, one episode at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from head_cases import episode, padded
from scipy.special import logsumexp

from autometa.heads import HEADS, FeatureBatch
from autometa.heads.centroid import nearest_centroid
from autometa.heads.knn import kernel_neighbours
from autometa.heads.laplacian import laplacian_shot
from autometa.heads.ot_map import ot_map
from autometa.heads.soft_kmeans import soft_kmeans
from autometa.heads.tim import tim

Array = np.ndarray[Any, Any]
Reference = Callable[[Array, Array, Array], Array]
"""Support [s, d], its labels [s] and query [q, d], float64 → scores [q, n]."""


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(logits: Array) -> Array:
    return np.exp(log_softmax(logits))


def log_softmax(logits: Array) -> Array:
    return np.asarray(logits - logsumexp(logits, axis=1, keepdims=True))


def means_of(support: Array, labels: Array) -> Array:
    return np.stack([support[labels == c].mean(0) for c in range(labels.max() + 1)])


def minus_distances(query: Array, means: Array) -> Array:
    return -np.square(query[:, None] - means[None]).sum(-1)


def reference_nearest_mean(support: Array, labels: Array, query: Array) -> Array:
    return 3.0 * minus_distances(unit(query), means_of(unit(support), labels))


def reference_euclidean(support: Array, labels: Array, query: Array) -> Array:
    return minus_distances(query, means_of(support, labels)) + np.square(query).sum(1, keepdims=True)


def reference_cosine(support: Array, labels: Array, query: Array) -> Array:
    return unit(query) @ unit(means_of(support, labels)).T


def reference_imprinted(support: Array, labels: Array, query: Array) -> Array:
    return unit(query) @ unit(means_of(unit(support), labels)).T


def reference_neighbours(support: Array, labels: Array, query: Array) -> Array:
    votes = np.exp(20.0 * unit(query) @ unit(support).T)
    return np.log(np.stack([votes[:, labels == c].sum(1) for c in range(labels.max() + 1)], axis=1))


def reference_soft_kmeans(support: Array, labels: Array, query: Array) -> Array:
    support, query = unit(support), unit(query)
    classes = np.eye(labels.max() + 1)[labels]
    means = means_of(support, labels)
    for _ in range(10):
        p = softmax(5.0 * minus_distances(query, means))
        means = (classes.T @ support + p.T @ query) / (classes.sum(0) + p.sum(0))[:, None]
    return 5.0 * minus_distances(query, means)


def reference_bd_cspn(support: Array, labels: Array, query: Array) -> Array:
    support, query = unit(support), unit(query)
    moved = unit(query + 0.7 * (support.mean(0) - query.mean(0)))
    means = unit(means_of(support, labels))
    guessed = (moved @ means.T).argmax(1)
    rectified = []
    for c, mean in enumerate(means):
        members = np.concatenate([support[labels == c], moved[guessed == c]])
        rectified.append((np.exp(3.0 * members @ mean)[:, None] * members).sum(0))
    return moved @ unit(np.stack(rectified)).T


def reference_laplacian(support: Array, labels: Array, query: Array) -> Array:
    support, query = unit(support), unit(query)
    similar = query @ query.T
    np.fill_diagonal(similar, -np.inf)
    graph = np.zeros_like(similar)
    for row, neighbours in enumerate(np.argsort(-similar, axis=1)[:, : min(3, len(query) - 1)]):
        graph[row, neighbours] += 0.5
        graph[neighbours, row] += 0.5
    z = unary = 8.0 * minus_distances(query, means_of(support, labels))
    for _ in range(20):
        z = unary + 1.5 * graph @ softmax(z)
    return z


def entropy(p: torch.Tensor, alpha: float) -> torch.Tensor:
    """Shannon's or Tsallis' entropy of the last dimension."""
    return -(p * p.log()).sum(-1) if alpha == 1 else (1 - (p**alpha).sum(-1)) / (alpha - 1)


def reference_tim(
    support: Array, labels: Array, query: Array, alpha: float, weights: tuple[float, float] = (1.0, 0.3)
) -> Array:
    """By automatic differentiation of the loss."""
    images, asked = torch.from_numpy(unit(support)), torch.from_numpy(unit(query))
    own = torch.from_numpy(np.eye(labels.max() + 1)[labels]).bool()
    sharpness, ways = 10.0, own.shape[1]
    means = torch.from_numpy(means_of(unit(support), labels)).requires_grad_()
    velocity = torch.zeros_like(means)
    for _ in range(60):
        p, q = ((-sharpness * torch.cdist(x, means).square()).softmax(-1) for x in (images, asked))
        known = p[own]
        cross_entropy = -known.log() if alpha == 1 else (1 - known ** (alpha - 1)) / (alpha - 1)
        loss = weights[0] * cross_entropy.mean() - entropy(q.mean(0), alpha)
        loss = loss + weights[1] * entropy(q, alpha).mean()
        (slope,) = torch.autograd.grad(loss, means)
        velocity = 0.9 * velocity - 0.05 * ways * slope / (2 * sharpness)
        means = (means + velocity).detach().requires_grad_()
    scores: Array = (-sharpness * torch.cdist(asked, means).square()).detach().numpy()
    return scores


def reference_ot_map(support: Array, labels: Array, query: Array, *, cosine: bool = False) -> Array:
    support, query = unit(support - support.mean(0)), unit(query - query.mean(0))
    classes, potential = np.eye(labels.max() + 1)[labels], np.zeros(labels.max() + 1)
    means = means_of(support, labels)

    def transported(rounds: int) -> Array:
        """Log of the share of each class in each query, after so many rounds of Sinkhorn's algorithm."""
        nonlocal potential
        logits = 15.0 * minus_distances(query, unit(means) if cosine else means)
        for _ in range(rounds):
            of_queries = log_softmax(logits + potential)
            potential = potential + np.log(len(query) / len(means)) - logsumexp(of_queries, axis=0)
        return log_softmax(logits + potential)

    for _ in range(12):
        p = np.exp(transported(2))
        assigned = (classes.T @ support + p.T @ query) / (classes.sum(0) + p.sum(0))[:, None]
        means = means + 0.4 * (assigned - means)
    return transported(24)


def reference_without_transport(support: Array, labels: Array, query: Array) -> Array:
    centre = support.mean(0)
    means = means_of(unit(support - centre), labels)
    return log_softmax(15.0 * minus_distances(unit(query - centre), means))


def reference_rectified_laplacian(support: Array, labels: Array, query: Array) -> Array:
    """As `reference_laplacian`, for queries that are shifted and prototypes that take in those nearest to them."""
    support, query = unit(support), unit(query)
    moved = query + support.mean(0) - query.mean(0)
    nearest = unit(means_of(support, labels))
    images = np.concatenate([support, moved])
    shares = softmax(10.0 * unit(images) @ nearest.T)
    owner = np.concatenate([labels, (unit(moved) @ nearest.T).argmax(1)])
    means = np.stack([
        (shares[owner == c, c][:, None] * images[owner == c]).sum(0) / shares[owner == c, c].sum()
        for c in range(labels.max() + 1)
    ])  # fmt: skip
    similar = query @ query.T
    np.fill_diagonal(similar, -np.inf)
    graph = np.zeros_like(similar)
    for row, neighbours in enumerate(np.argsort(-similar, axis=1)[:, : min(3, len(query) - 1)]):
        graph[row, neighbours] += 0.5
        graph[neighbours, row] += 0.5
    z = unary = 8.0 * minus_distances(moved, means)
    for _ in range(20):
        z = unary + 1.5 * graph @ softmax(z)
    return z


def reference_renormalised_kmeans(support: Array, labels: Array, query: Array) -> Array:
    support, query = unit(support), unit(query)
    classes = np.eye(labels.max() + 1)[labels]
    means = means_of(support, labels)
    for _ in range(10):
        p = softmax(5.0 * minus_distances(query, unit(means)))
        means = (classes.T @ support + p.T @ query) / (classes.sum(0) + p.sum(0))[:, None]
    return 5.0 * minus_distances(query, unit(means))


REFERENCES: dict[str, tuple[dict[str, float | str], Reference]] = {
    "centroid": ({"metric": "cosine"}, reference_cosine),
    "simpleshot": ({}, reference_euclidean),
    "imprinted": ({}, reference_imprinted),
    "knn": ({"sharpness": 20.0}, reference_neighbours),
    "soft_kmeans": ({"sharpness": 5.0}, reference_soft_kmeans),
    "bd_cspn": ({"sharpness": 3.0, "shift": 0.7}, reference_bd_cspn),
    "laplacian": ({"sharpness": 8.0, "agreement": 1.5}, reference_laplacian),
    "ot_map": ({"sharpness": 15.0, "step": 0.4}, reference_ot_map),
    "tim": ({"sharpness": 10.0}, partial(reference_tim, alpha=1.0)),
    "alpha_tim": ({"sharpness": 10.0}, partial(reference_tim, alpha=2.0)),
}
"""Rows of `HEADS` with the parameters that the formulas have."""
COUNTERPARTS: dict[str, tuple[dict[str, float | str], Reference]] = {
    "soft_kmeans": ({"sharpness": 3.0}, reference_nearest_mean),
    "tim": ({"sharpness": 3.0}, reference_nearest_mean),
    "alpha_tim": ({"sharpness": 3.0}, reference_nearest_mean),
    "laplacian": ({"sharpness": 3.0, "agreement": 1.0}, reference_nearest_mean),
    "bd_cspn": ({}, reference_imprinted),
    "ot_map": ({"sharpness": 15.0}, reference_without_transport),
}
"""Inductive heads in their place."""


def hard_episodes() -> list[FeatureBatch]:
    """Overlapping classes with uneven shots and uneven queries, which every head answers otherwise."""
    shapes: list[tuple[int, int, Sequence[int] | int]] = [(3, 4, [7, 2, 3]), (5, 1, 6), (4, 3, [1, 9, 0, 5])]
    episodes = [episode(*shape, seed=seed, spread=1.3)[0] for seed, shape in enumerate(shapes)]
    kept = [0, 1, 2, 3, 4, 8, 9]  # four, one and two shots
    few = episodes[0]
    episodes[0] = replace(few, support=few.support[:, kept], support_labels=few.support_labels[:, kept])
    return episodes


def answers(batch: FeatureBatch, reference: Reference) -> Array:
    support, query = batch.support[0].double().numpy(), batch.query[0].double().numpy()
    return reference(support, batch.support_labels[0].numpy(), query)


def check(head: Callable[[FeatureBatch], torch.Tensor], reference: Reference) -> None:
    """Each episode alone, and all of them padded to one batch."""
    alone = hard_episodes()
    together = head(padded(alone).cleaned()).double().numpy()
    for place, batch in enumerate(alone):
        wanted = answers(batch, reference)
        np.testing.assert_allclose(head(batch)[0].double().numpy(), wanted, atol=2e-3)
        ours = together[place, : wanted.shape[0], : wanted.shape[1]]
        np.testing.assert_allclose(ours, wanted, atol=2e-3)


@pytest.mark.parametrize("name", REFERENCES)
def test_heads_equal_their_formulas(name: str) -> None:
    params, reference = REFERENCES[name]
    check(partial(HEADS[name].function, **params), reference)


@pytest.mark.parametrize("name", COUNTERPARTS)
def test_inductive_counterparts_equal_their_formulas(name: str) -> None:
    params, reference = COUNTERPARTS[name]
    counterpart = HEADS[name].counterpart
    assert counterpart is not None
    check(partial(counterpart, **params), reference)


def test_variants_of_papers_equal_their_formulas() -> None:
    """Those that the codes of MetaDelta, MetaDelta++, LaplacianShot and TIM have."""
    check(partial(soft_kmeans, sharpness=5.0, renormalise=True), reference_renormalised_kmeans)
    check(partial(ot_map, sharpness=15.0, cosine=True), partial(reference_ot_map, cosine=True))
    check(
        partial(laplacian_shot, sharpness=8.0, agreement=1.5, rectified=True), reference_rectified_laplacian
    )
    weighted = partial(reference_tim, alpha=1.0, weights=(0.1, 0.1))
    check(partial(tim, sharpness=10.0, support_weight=0.1, confidence=0.1), weighted)


def test_the_head_called_tim_has_the_published_weights_and_saved_ones_keep_theirs() -> None:
    assert HEADS["tim"].params == {"sharpness": 7.5, "support_weight": 0.1, "confidence": 0.1}
    assert HEADS["laplacian"].params["rectified"]
    batch = hard_episodes()[0]
    saved = tim(batch, sharpness=10.0), laplacian_shot(batch, sharpness=8.0, agreement=1.5)
    torch.testing.assert_close(saved[0], tim(batch, sharpness=10.0, support_weight=1.0, confidence=0.3))
    torch.testing.assert_close(saved[1], laplacian_shot(batch, sharpness=8.0, agreement=1.5, rectified=False))


def test_other_entropies_equal_their_formula() -> None:
    check(partial(tim, sharpness=10.0, alpha=5.0), partial(reference_tim, alpha=5.0))


def test_transductive_heads_all_have_a_counterpart_with_a_formula() -> None:
    assert set(COUNTERPARTS) == {name for name, spec in HEADS.items() if spec.transductive} <= set(REFERENCES)


@pytest.mark.parametrize("name", ["knn", *COUNTERPARTS])
def test_no_formula_is_the_nearest_mean_in_disguise(name: str) -> None:
    """The episodes above tell each head from nearest class means."""
    for batch in hard_episodes():
        found = softmax(answers(batch, REFERENCES[name][1]))
        for other in (reference_nearest_mean, reference_cosine, reference_imprinted):
            assert np.abs(found - softmax(answers(batch, other))).max() > 0.02


def test_one_neighbour_decides_where_the_mean_says_otherwise() -> None:
    """By hand: class 0 has the nearest image, class 1 the nearest mean."""
    support = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.8, 0.6], [0.8, 0.6]])[None]
    labels = torch.tensor([[0, 0, 1, 1]])
    query = torch.tensor([[1.0, 0.0]])[None]
    batch = FeatureBatch(support, labels, query, torch.tensor([2]))
    scores = kernel_neighbours(batch, sharpness=20.0)[0, 0]
    expected = np.log([np.exp(20.0) + 1, 2 * np.exp(16.0)])
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert scores.argmax() == 0 and nearest_centroid(batch)[0, 0].argmax() == 1
