"""The workbench: images embedded, turned classes, and metrics that a fold's classes are left out of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shop_cases import hard_pool, make_bench, make_forecast

from autometa.backbones import View
from autometa.core.budget import UNLIMITED, TimeBudget
from autometa.core.errors import BudgetExhausted
from autometa.heads import FeatureStatistics, find_metric
from autometa.heads.modes import SIX_MODES, collect_keys, join_features
from autometa.model.inputs import list_inputs
from autometa.search import workbench
from autometa.search.workbench import ORIENTATIONS, Workbench, orient

pytestmark = pytest.mark.usefixtures("eager_only")

POOL = hard_pool()


def embed(bench: Workbench, view: View, orientation: int = 0) -> torch.Tensor:
    """Features of all images, without any store."""
    network = bench.forecast.shelf(view.backbone)
    images = orient(POOL.images, orientation)
    return network.pick(network.embed_layers(images, view.px, flip=False), view.layers)


def statistics(bench: Workbench, view: View, rows: np.ndarray, orientations: int = 1) -> FeatureStatistics:
    """Of some images in so many orientations, whose classes are further classes."""
    features = [embed(bench, view, n)[torch.from_numpy(rows)] for n in range(orientations)]
    labels = [POOL.labels[rows] + POOL.classes * n for n in range(orientations)]
    return FeatureStatistics(torch.cat(features), torch.from_numpy(np.concatenate(labels)))


def test_orientations_are_all_different() -> None:
    image = np.random.default_rng(0).integers(0, 255, (1, 3, 4, 6)).astype(np.uint8)
    seen = [orient(image, n) for n in range(len(ORIENTATIONS))]
    assert (seen[0] == image).all()
    assert (seen[1] == image[..., ::-1, ::-1]).all()
    assert (seen[4] == image[..., ::-1]).all()
    assert seen[2].shape == (1, 3, 6, 4)
    assert len({(one.shape, one.tobytes()) for one in seen}) == 8


@pytest.mark.medium
@pytest.mark.parametrize("orientations", [1, 2])
def test_products_are_those_of_metrics_fitted_to_the_other_folds(
    tiny_backbone: str, orientations: int
) -> None:
    bench, view = make_bench(make_forecast(tiny_backbone), POOL), View(tiny_backbone, 32)
    for known in range(1, orientations + 1):
        bench.take_in(view, known, UNLIMITED)
    assert bench.orientations == {view: orientations}
    for place, fold in enumerate(bench.folds):
        others = np.flatnonzero(~np.isin(POOL.labels, fold.classes))
        assert bench.labels(place).tolist() == POOL.labels[fold.rows].tolist()
        for key in collect_keys(SIX_MODES):
            moved = []
            for one, name in list_inputs([view], key):
                metric = statistics(bench, one, others, orientations).fit(find_metric(name))
                moved.append(metric(embed(bench, one)[torch.from_numpy(fold.rows)]))
            expected = join_features(moved)
            found = bench.products(place, view, key)
            torch.testing.assert_close(found, expected @ expected.T, atol=5e-3, rtol=0)
            torch.testing.assert_close(found.diagonal(), torch.ones(len(fold.rows)))


@pytest.mark.medium
def test_metrics_of_the_portfolio_are_fitted_to_all_classes(tiny_backbone: str) -> None:
    bench, view = make_bench(make_forecast(tiny_backbone), POOL), View(tiny_backbone, 32)
    bench.take_in(view, 1, UNLIMITED)
    metrics = bench.metrics([view], SIX_MODES)
    assert set(metrics) == {one for key in collect_keys(SIX_MODES) for one in list_inputs([view], key)}
    for (one, name), metric in metrics.items():
        features = embed(bench, one)
        expected = statistics(bench, one, np.arange(len(POOL.labels))).fit(find_metric(name))(features)
        found = metric(features)
        torch.testing.assert_close(found @ found.T, expected @ expected.T, atol=1e-2, rtol=0)


def test_time_that_is_too_short_changes_nothing(tiny_backbone: str) -> None:
    bench, view = make_bench(make_forecast(tiny_backbone), POOL), View(tiny_backbone, 32)
    with pytest.raises(BudgetExhausted):
        bench.take_in(view, 1, TimeBudget.of(-1))
    assert not bench.orientations
    bench.take_in(view, 1, UNLIMITED)
    before = bench.products(0, view, ("white_prior", False)).clone()
    with pytest.raises(BudgetExhausted):
        bench.take_in(view, 2, TimeBudget.of(-1))
    assert bench.orientations == {view: 1}
    assert torch.equal(bench.products(0, view, ("white_prior", False)), before)


@pytest.mark.medium
def test_steps_of_turned_classes_add_up(tiny_backbone: str) -> None:
    forecast, view = make_forecast(tiny_backbone), View(tiny_backbone, 32)
    at_once, in_steps = make_bench(forecast, POOL), make_bench(forecast, POOL)
    at_once.take_in(view, 4, UNLIMITED)
    for n in (1, 2, 4):
        in_steps.take_in(view, n, UNLIMITED)
    for key in collect_keys(SIX_MODES):
        found = [bench.products(1, view, key) for bench in (at_once, in_steps)]
        torch.testing.assert_close(*found, atol=1e-3, rtol=0)


def test_without_folds_there_are_metrics_but_no_products(tiny_backbone: str) -> None:
    bench, view = make_bench(make_forecast(tiny_backbone), POOL), View(tiny_backbone, 32)
    bench = Workbench(POOL, [], ("unfitted",), bench.forecast)
    bench.take_in(view, 1, UNLIMITED)
    assert bench.product_bytes == 0
    assert list(bench.metrics([view], ["unfitted"])) == list_inputs([view], ("root_l2", False))


def test_few_images_are_turned_at_a_time(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them would take the memory of another pool."""
    sizes: list[int] = []

    def counting(images: np.ndarray, orientation: int) -> np.ndarray:
        sizes.append(len(images))
        return orient(images, orientation)

    monkeypatch.setattr(workbench, "orient", counting)
    monkeypatch.setattr(workbench, "TURNED_IMAGES", 50)
    bench, view = make_bench(make_forecast(tiny_backbone), POOL), View(tiny_backbone, 32)
    bench.take_in(view, 2, UNLIMITED)
    assert sizes == [50, 50, 20]
    for one, (turned,) in bench._turned.items():
        torch.testing.assert_close(turned.float(), embed(bench, one, 1), atol=1e-3, rtol=1e-2)
