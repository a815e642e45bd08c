"""Evidence is what a saved portfolio would answer, were its metrics fitted to the other folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shop_cases import hard_pool, make_bench, make_forecast

from autometa.backbones import View
from autometa.core.budget import UNLIMITED
from autometa.evaluation.accuracy import normalised_accuracy
from autometa.heads import FeatureStatistics, Metric, find_metric
from autometa.heads.modes import SIX_MODES, collect_keys
from autometa.heads.refine import Refinement
from autometa.model.artifact import MetricKey
from autometa.model.inputs import list_inputs
from autometa.model.portfolio import Portfolio
from autometa.model.portfolio_description import WeightedMode
from autometa.search.evidence import Evidence, Mixture

pytestmark = pytest.mark.usefixtures("eager_only")

POOL = hard_pool()
FOLD = 1


@pytest.fixture
def views(tiny_backbone: str) -> list[View]:
    return [View(tiny_backbone, 32), View(tiny_backbone, 48)]


@pytest.fixture
def evidence(tiny_backbone: str, views: list[View]) -> Evidence:
    bench = make_bench(make_forecast(tiny_backbone), POOL)
    for view in views:
        bench.take_in(view, 1, UNLIMITED)
    return Evidence(bench, balanced=True)


def portfolio_without_fold(evidence: Evidence, mixture: Mixture) -> Portfolio:
    """The portfolio of a mixture, its metrics fitted to the classes of the other folds only."""
    bench, views = evidence.workbench, tuple(mixture.views)
    rows = np.flatnonzero(~np.isin(POOL.labels, bench.folds[FOLD].classes))
    metrics: dict[MetricKey, Metric] = {}
    for one, name in {one for key in collect_keys(mixture.modes) for one in list_inputs(views, key)}:
        features = bench.forecast.store.take(one, rows.tolist())
        statistics = FeatureStatistics(features, torch.from_numpy(POOL.labels[rows]))
        metrics[one, name] = statistics.fit(find_metric(name))
    modes = tuple(WeightedMode(name=name, weight=weight) for name, weight in mixture.modes.items())
    return Portfolio(
        views,
        modes,
        bench.forecast.shelf,
        metrics,
        balanced=True,
        weights=tuple(mixture.views.values()),
        refinement=mixture.refinement,
    )


@pytest.mark.medium
def test_it_is_what_the_portfolio_answers(evidence: Evidence, views: list[View]) -> None:
    weights = dict(zip(SIX_MODES, (1.0, 2.0, 1.0, 0.5, 1.0, 3.0), strict=True))
    mixture = Mixture({views[0]: 0.7, views[1]: 0.3}, weights, Refinement(sharpness=10.0, zca_shrinkage=0.2))
    learner = portfolio_without_fold(evidence, mixture)
    fold = evidence.workbench.folds[FOLD]
    mixed = evidence.answer(mixture, FOLD).mix(weights)
    for batch, log_p in zip(fold.episodes.batches, mixed, strict=True):
        for row in range(len(batch.ways)):
            support, query = batch.support_labels[row] >= 0, batch.query_labels[row] >= 0
            ways = int(batch.ways[row])
            images = POOL.images[fold.rows[batch.support_rows[row][support].numpy()]]
            asked = POOL.images[fold.rows[batch.query_rows[row][query].numpy()]]
            labels = batch.support_labels[row][support].numpy()
            expected = learner.fit(images, labels, ways).predict(asked)
            found = log_p[row][query][:, :ways].exp().numpy()
            np.testing.assert_allclose(found, expected, atol=0.02)


def test_accuracies_are_those_of_the_episodes(evidence: Evidence, views: list[View]) -> None:
    mixture = Mixture(dict.fromkeys(views, 0.5), {"root": 1.0, "plain": 1.0})
    accuracies = evidence.accuracies(mixture, FOLD)
    episodes = evidence.workbench.folds[FOLD].episodes
    scores = evidence.answer(mixture, FOLD).mix(mixture.modes)
    expected = [
        normalised_accuracy(score, batch.query_labels, batch.ways)
        for batch, score in zip(episodes.batches, scores, strict=True)
    ]
    assert len(accuracies) == len(episodes.episodes)
    assert accuracies.mean() == pytest.approx(float(torch.cat(expected).mean()))
    assert 0.2 < accuracies.mean() < 1.0
    assert evidence.mean(mixture, [FOLD]) == [pytest.approx(accuracies.mean())]
    asked_s = evidence.fold_s(["root", "plain"])
    assert asked_s > 0 and evidence.fold_s(["root", "plain", "layers"]) == pytest.approx(1.5 * asked_s)


def test_only_relative_weights_count(evidence: Evidence, views: list[View]) -> None:
    one = evidence.answer(Mixture(dict.fromkeys(views, 0.5), {"root": 1.0}), FOLD)
    same = evidence.answer(Mixture(dict.fromkeys(views, 3.0), {"root": 1.0}), FOLD)
    first = evidence.answer(Mixture({views[0]: 1.0}, {"root": 1.0}), FOLD)
    mostly = evidence.answer(Mixture({views[0]: 1.0, views[1]: 1e-6}, {"root": 1.0}), FOLD)
    for a, b in ((one, same), (first, mostly)):
        torch.testing.assert_close(a.scores[0], b.scores[0], atol=5e-3, rtol=0)
    assert (one.scores[0].exp() - first.scores[0].exp()).abs().max() > 1e-2


def test_a_mode_without_weight_does_not_count(evidence: Evidence, views: list[View]) -> None:
    answer = evidence.answer(Mixture({views[0]: 1.0}, {"root": 1.0, "layers": 1.0}), FOLD)
    alone = evidence.answer(Mixture({views[0]: 1.0}, {"root": 1.0}), FOLD)
    found = answer.mix({"root": 1.0, "layers": 0.0})
    torch.testing.assert_close(found[0], alone.mix({"root": 1.0})[0], atol=1e-4, rtol=1e-4)


def test_a_mixture_is_narrowed_to_some_views(views: list[View]) -> None:
    mixture = Mixture(dict(zip(views, (0.7, 0.3), strict=True)), {"root": 1.0})
    assert mixture.narrowed([views[1], View("other", 32)]).views == {views[1]: 0.3}
    assert mixture.narrowed(views).modes == mixture.modes
