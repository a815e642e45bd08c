"""Modes: what they do to the inner products of an episode, and that several are answered as each alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from head_cases import episode, padded

from autometa.heads import FeatureBatch, FeatureStatistics, MetricSpec, apply_head, find_metric
from autometa.heads.features import unit
from autometa.heads.fitting import compute_scatter, lengthen_class_directions
from autometa.heads.joint import Joint
from autometa.heads.modes import MODES, Key, answer_alone, apply_modes, find_mode, join_features
from autometa.heads.ot_map import without_transport
from autometa.heads.refine import DEFAULT_REFINEMENT, adapt_to_support, whiten_task

KEYS = sorted({key for mode in MODES.values() for key in mode.keys})


def batches(batch: FeatureBatch) -> dict[Key, FeatureBatch]:
    """Other features for every key: turned and scaled differently."""
    found = {}
    for number, key in enumerate(KEYS):
        generator = torch.Generator().manual_seed(number)
        turned = torch.randn(batch.support.shape[-1], 16, generator=generator)
        found[key] = replace(batch, support=unit(batch.support @ turned), query=unit(batch.query @ turned))
    return found


def test_transport_alone_is_the_head() -> None:
    batch, _ = episode(4, 3, 5)
    ours = apply_modes(["transport"], dict.fromkeys(KEYS, batch.unit()), balanced=True)[0]
    head = apply_head("ot_map", {"sharpness": 15.0, "step": 0.4}, batch.unit(), balanced=True)
    torch.testing.assert_close(ours, head)


@pytest.mark.parametrize("name", MODES)
def test_a_mode_beside_others_is_the_mode_alone(name: str) -> None:
    batch, _ = episode(4, 3, 5)
    together = apply_modes(list(MODES), batches(batch), balanced=True)
    alone = apply_modes([name], batches(batch), balanced=True)
    torch.testing.assert_close(together[list(MODES).index(name)], alone[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone[0].exp().sum(-1), torch.ones(1, 20))


def self_products(x: torch.Tensor) -> torch.Tensor:
    return x @ x.transpose(1, 2)


def test_known_inner_products_are_used() -> None:
    given = batches(episode(4, 3, 5)[0])
    images = {key: torch.cat([one.support, one.query], dim=1) for key, one in given.items()}
    known = {
        key: replace(
            one,
            support=torch.zeros_like(one.support),
            query=torch.zeros_like(one.query),
            products=partial(self_products, images[key]),
        )
        for key, one in given.items()
    }
    ours, theirs = (apply_modes(list(MODES), each) for each in (known, given))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODES)
def test_padding_has_no_effect(name: str) -> None:
    episodes = [episode(ways, shots, 4, seed=ways)[0] for ways, shots in ((2, 1), (5, 3), (3, 2))]
    together = apply_modes([name], batches(padded(episodes)), balanced=True)[0]
    for place, each in enumerate(episodes):
        alone = apply_modes([name], batches(each), balanced=True)[0, 0]
        q, n = alone.shape
        torch.testing.assert_close(together[place, :q, :n], alone, rtol=1e-3, atol=1e-3)
        assert bool((together[place, :q, n:] == float("-inf")).all())


@pytest.mark.parametrize("name", MODES)
def test_the_order_of_classes_and_images_has_no_effect(name: str) -> None:
    batch, _ = episode(4, 3, 5)
    order, images = torch.tensor([2, 0, 3, 1]), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    other = replace(
        batch,
        support=batch.support[:, images],
        support_labels=order[batch.support_labels][:, images],
    )
    before = apply_modes([name], batches(batch), balanced=True)[0]
    after = apply_modes([name], batches(other), balanced=True)[0]
    torch.testing.assert_close(after[..., order], before, rtol=1e-3, atol=1e-3)


def test_unbalanced_queries_are_answered_one_by_one() -> None:
    batch, _ = episode(3, 3, [9, 1, 0], spread=0.2)
    ours = apply_modes(["transport", "root"], batches(batch))
    alone = without_transport(batches(batch)["root_white", False], sharpness=15.0)
    torch.testing.assert_close(ours[0], alone)
    torch.testing.assert_close(answer_alone(["transport", "root"], batches(batch)), ours)
    one = replace(batch, query=batch.query[:, :1])
    torch.testing.assert_close(apply_modes(["transport"], batches(one))[0], ours[0][:, :1])


@pytest.mark.medium
def test_refined_modes_are_right_more_often_than_chance_by_far() -> None:
    for name in MODES:
        hits = []
        for seed in range(10):
            batch, asked = episode(5, 2, 5, seed=seed, spread=0.8)
            scores = apply_modes([name], dict.fromkeys(KEYS, batch.unit()), balanced=True)[0]
            hits.append(float((scores[0].argmax(1) == asked).double().mean()))
        assert sum(hits) / 10 > 0.75, name


def test_whitening_a_task_flattens_its_eigenvalues() -> None:
    joint, share = Joint.of(episode(4, 3, 5)[0], centred=True), DEFAULT_REFINEMENT.zca_shrinkage
    m = joint.gram.shape[1]
    values, vectors = torch.linalg.eigh(joint.gram[0].double())
    mean = values.clamp(min=0).sum() / m
    flat = values.clamp(min=0) / ((share * values + (1 - share) * mean) / m)
    expected = (vectors * flat) @ vectors.T
    scale = expected.diagonal().rsqrt()
    torch.testing.assert_close(
        whiten_task(joint).gram[0].double(), expected * scale[:, None] * scale, rtol=1e-3, atol=1e-3
    )


def test_adapting_moves_the_support_towards_its_class_means() -> None:
    joint = Joint.of(episode(4, 4, 5, spread=1.5)[0], centred=True)
    after = adapt_to_support(joint)

    def margin(one: Joint) -> float:
        products = (one.class_means @ one.gram)[0, :, :16]
        own = one.labels[0, :, :16].bool()
        return float(products[own].mean() - products[~own].mean())

    assert margin(after) > margin(joint)
    single = Joint.of(episode(4, 1, 5)[0], centred=True)
    torch.testing.assert_close(adapt_to_support(single).gram, single.gram)


def adapt_by_autograd(joint: Joint) -> torch.Tensor:
    """Inner products [b, m, m] after the same map, trained by automatic differentiation and torch's Adam."""
    s = int((joint.labels.sum(1) > 0).sum(1).max())
    values, vectors = torch.linalg.eigh(joint.gram[:, :s, :s])
    basis = (
        vectors * torch.where(values > 1e-5 * values[:, -1:], values.clamp(min=1e-30).rsqrt(), 0.0)[:, None]
    )
    coordinates, labels = joint.gram[:, :, :s] @ basis, joint.labels[:, :, :s]
    weights = torch.eye(s).double().repeat(len(basis), 1, 1).requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=0.02)
    real = labels.sum(1) > 0
    for _ in range(15):
        moved = F.normalize(coordinates[:, :s] @ weights.transpose(1, 2), dim=2)
        logits = 10 * moved @ F.normalize(labels @ moved, dim=2).transpose(1, 2)
        logits = logits.masked_fill(~joint.present[:, None, :], float("-inf"))
        losses = F.cross_entropy(logits.transpose(1, 2), labels.argmax(1), reduction="none") * real
        optimizer.zero_grad()
        (losses.sum(1) / real.sum(1)).sum().backward()
        optimizer.step()
    moved = coordinates @ weights.detach().transpose(1, 2)
    gram = joint.gram + moved @ moved.transpose(1, 2) - coordinates @ coordinates.transpose(1, 2)
    scale = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-12).rsqrt()
    return gram * scale[:, :, None] * scale[:, None, :]


@pytest.mark.medium
def test_the_gradient_of_the_adapted_map_is_that_of_autograd() -> None:
    episodes = [episode(ways, shots, 4, seed=ways, spread=1.5)[0] for ways, shots in ((2, 3), (5, 4), (3, 2))]
    joint = Joint.of(padded(episodes).cleaned(), centred=True)
    joint = replace(joint, gram=joint.gram.double(), labels=joint.labels.double())
    with torch.inference_mode():
        ours = adapt_to_support(joint).gram
    torch.testing.assert_close(ours, adapt_by_autograd(joint), rtol=1e-9, atol=1e-9)


def test_inner_products_of_joined_features_are_means() -> None:
    parts = [unit(torch.randn(6, d, generator=torch.Generator().manual_seed(d))) for d in (3, 8)]
    joined = join_features(parts)
    torch.testing.assert_close(joined @ joined.T, (parts[0] @ parts[0].T + parts[1] @ parts[1].T) / 2)


def test_directions_of_class_means_are_lengthened() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(6).repeat(8)
    means = torch.randn(6, 10, generator=generator) * torch.linspace(3, 0.1, 10)
    features = means[labels] + torch.randn(48, 10, generator=generator)
    scatter = compute_scatter(features, labels)
    plain, lengthened = (lengthen_class_directions(scatter, 0.1, power).double() for power in (0.0, 0.5))
    shrunk = 0.9 * scatter.within.double() + 0.1 * scatter.within.diagonal().mean() * torch.eye(10).double()
    torch.testing.assert_close(plain.T @ shrunk @ plain, torch.eye(10).double(), rtol=1e-4, atol=1e-4)
    centred = (scatter.class_means - scatter.class_means.mean(0)) @ plain
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    variances = sizes[:5] ** 2
    gains = (1 + variances / variances.mean()) ** 0.25
    stretch = torch.eye(10).double() + directions[:5].T @ torch.diag(gains - 1) @ directions[:5]
    torch.testing.assert_close(lengthened, plain @ stretch, rtol=1e-4, atol=1e-4)


def test_metrics_of_modes_are_known_by_name_and_fitted() -> None:
    spec = find_metric("white_mild_prior")
    assert spec == MetricSpec(shrinkage=0.6, class_power=0.5) and spec.learned
    features = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
    metric = FeatureStatistics(features, torch.arange(8).repeat(5)).fit(spec)
    torch.testing.assert_close(metric(features).norm(dim=1), torch.ones(40))


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(ValueError, match="unknown mode `fast`; one of adapted, root"):
        find_mode("fast")
