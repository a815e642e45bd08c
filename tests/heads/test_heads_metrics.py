"""Metrics learned in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from autometa.heads import METRICS, FeatureStatistics, Metric, MetricSpec
from autometa.heads.fitting import compute_scatter, compute_whitening, invert_lower
from autometa.heads.metrics import find_metric


def features(classes: int = 12, each: int = 30, d: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Positive features whose spread within classes differs from direction to direction."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(each)
    means = torch.randn(classes, d, generator=generator)
    mixing = torch.randn(d, d, generator=generator)
    noise = torch.randn(len(labels), d, generator=generator) @ mixing
    return (means[labels] + noise).abs(), labels


@pytest.mark.parametrize("power", ["none", "root", "rank"])
def test_whitening_makes_covariance_within_classes_the_identity(power: Any) -> None:
    x, y = features()
    metric = FeatureStatistics(x, y).fit(MetricSpec(power, shrinkage=0.0, unit=False))
    within = compute_scatter(metric(x), y).within
    torch.testing.assert_close(within, torch.eye(16), atol=2e-3, rtol=0)


def test_whitening_diagonalises_class_means_and_sorts_them() -> None:
    x, y = features()
    metric = FeatureStatistics(x, y).fit(MetricSpec(shrinkage=0.1, unit=False))
    means = compute_scatter(metric(x), y).class_means
    spread = torch.cov(means.T)
    off = spread - torch.diag(spread.diagonal())
    assert off.abs().max() < 1e-3
    assert (spread.diagonal().diff() < 1e-3).all()
    assert metric.prior is not None
    expected = (spread.diagonal() - 1 / 30).clamp(min=0)[:11].float()
    torch.testing.assert_close(metric.prior.between[:11], expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("shrinkage", [0.0, 0.6])
@pytest.mark.parametrize("d", [5, 40])
def test_whitening_is_exact_in_both_precisions(shrinkage: float, d: int) -> None:
    x, y = features(classes=8, each=20, d=d)
    scatter = compute_scatter(x, y)
    projection, between = compute_whitening(scatter, shrinkage)
    projection = projection.double()
    shrunk = (1 - shrinkage) * scatter.within.double()
    shrunk += (shrinkage + 1e-6) * scatter.within.diagonal().mean() * torch.eye(d).double()
    torch.testing.assert_close(
        projection.T @ shrunk @ projection, torch.eye(d).double(), rtol=1e-4, atol=1e-4
    )
    moved = (scatter.class_means - scatter.class_means.mean(0)) @ projection
    rank = min(7, d)
    variances = moved.square().sum(0)
    torch.testing.assert_close(
        between[:rank], (variances[:rank] / 7 - 1 / 20).clamp(min=0), rtol=1e-4, atol=1e-5
    )
    assert (variances.diff() < 1e-4).all() and (variances[rank:] < 1e-6).all()


def test_triangular_matrices_are_inverted_by_halves() -> None:
    factor = torch.eye(600).double() * 3 + torch.rand(600, 600).double().tril() / 600
    torch.testing.assert_close(invert_lower(factor) @ factor, torch.eye(600).double())


def test_discriminants_are_one_fewer_than_classes() -> None:
    x, y = features(classes=5)
    metric = FeatureStatistics(x, y + 70).fit(find_metric("root_lda"))
    assert metric(x).shape == (len(x), 4)


def test_more_dimensions_than_images() -> None:
    x, y = features(classes=4, each=3, d=100)
    for spec in METRICS.values():
        assert FeatureStatistics(x, y).fit(spec)(x).isfinite().all()


def test_rank_transform_is_normal_and_monotonous() -> None:
    x, y = features(classes=10, each=200)
    moved = FeatureStatistics(x, y).fit(MetricSpec("rank", unit=False))(x)
    assert moved.mean(0).abs().max() < 0.05
    assert (moved.std(0) - 1).abs().max() < 0.1
    assert (moved[x[:, 0].argsort(), 0].diff() >= 0).all()
    assert moved.isfinite().all()


@pytest.mark.parametrize("name", METRICS)
def test_survives_saving_as_tensors(name: str) -> None:
    x, y = features()
    metric = FeatureStatistics(x, y).fit(METRICS[name])
    again = Metric.from_tensors(METRICS[name], metric.tensors())
    assert again(x).equal(metric(x))
    assert again.prior is not None and metric.prior is not None
    assert again.prior.between.equal(metric.prior.between)


def test_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="no meta-train features"):
        Metric(METRICS["white"])(torch.ones(2, 3))
    with pytest.raises(ValueError, match="root_whit`; one of none, l2"):
        find_metric("root_whit")
    with pytest.raises(ValueError, match="several images"):
        FeatureStatistics(torch.rand(3, 4), torch.arange(3)).fit(METRICS["white"])
