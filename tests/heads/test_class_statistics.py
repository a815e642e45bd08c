"""Statistics by groups of classes give the metrics that a fit to the images of the other groups would give."""

from __future__ import annotations

import pytest
import torch

from autometa.heads import FeatureStatistics, find_metric
from autometa.heads.class_statistics import ClassStatistics
from autometa.heads.metrics import METRICS, MODE_METRICS

WHITENING = [
    name
    for name, spec in (METRICS | MODE_METRICS).items()
    if spec.shrinkage is not None and not spec.discriminants and spec.power != "rank"
]
GROUPS = 3


def features(classes: int = 12, each: int = 15, d: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Features whose spread differs from direction to direction, of classes numbered with gaps."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(each)
    means = 2 + torch.randn(classes, d, generator=generator)
    noise = torch.randn(len(labels), d, generator=generator) @ torch.randn(d, d, generator=generator)
    return means[labels] + noise, 5 * labels


def by_groups(x: torch.Tensor, y: torch.Tensor) -> ClassStatistics:
    statistics = ClassStatistics()
    for group in range(GROUPS):
        rows = y % GROUPS == group
        statistics.add(x[rows], y[rows], group, {"none", "root"})
    return statistics


def check_products(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal up to a rotation."""
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", WHITENING)
def test_a_metric_is_the_one_fitted_to_all_images(name: str) -> None:
    x, y = features()
    expected = FeatureStatistics(x, y).fit(find_metric(name))(x)
    check_products(by_groups(x, y).fit(name)(x), expected)


@pytest.mark.parametrize("name", WHITENING)
def test_without_a_group_it_is_the_one_fitted_to_the_others(name: str) -> None:
    x, y = features()
    rest = y % GROUPS != 1
    expected = FeatureStatistics(x[rest], y[rest]).fit(find_metric(name))(x)
    statistics = by_groups(x, y)
    check_products(statistics.fit(name, without=1)(x), expected)
    check_products(statistics.move(x, name, without=1), expected)
    others = FeatureStatistics(x, y).fit(find_metric(name))(x)
    assert (others @ others.T - expected @ expected.T).abs().max() > 0.02  # the group matters


def test_fewer_classes_than_dimensions_are_enough() -> None:
    x, y = features(classes=4, each=3, d=30)
    statistics = by_groups(x, y)
    for name in ("white_prior", "root_white_mild_prior"):
        expected = FeatureStatistics(x, y).fit(find_metric(name))(x)
        check_products(statistics.fit(name)(x), expected)
        check_products(statistics.move(x, name), expected)


def test_what_is_added_later_are_classes_of_their_own() -> None:
    x, y = features()
    statistics = by_groups(x, y)
    statistics.add(x.flip(1), y, 0, {"none", "root"})
    both, labels = torch.cat([x, x.flip(1)]), torch.cat([y, y + 1000])
    expected = FeatureStatistics(both, labels).fit(find_metric("root_white_prior"))(x)
    check_products(statistics.move(x, "root_white_prior"), expected)


def test_large_offsets_lose_no_precision() -> None:
    x, y = features()
    moved = by_groups(x + 1000, y).move(x + 1000, "white")
    check_products(moved, by_groups(x, y).move(x, "white"))


def test_too_little_to_fit_is_an_error() -> None:
    x, y = features()
    one_class, single_images, one_group = ClassStatistics(), ClassStatistics(), ClassStatistics()
    one_class.add(x[:15], y[:15], 0, {"none"})
    single_images.add(x[::15], y[::15], 0, {"none"})
    one_group.add(x, y, 0, {"none"})
    for statistics, without in ((one_class, None), (single_images, None), (one_group, 0)):
        with pytest.raises(ValueError, match="give more images"):
            statistics.fit("white", without)


@pytest.mark.parametrize("name", ["l2", "cl2n", "root_lda", "rank_white"])
def test_metrics_that_are_not_fitted_to_sums_are_an_error(name: str) -> None:
    x, y = features()
    with pytest.raises(ValueError, match="name one that whitens"):
        by_groups(x, y).move(x, name)
