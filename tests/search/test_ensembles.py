"""The broad ensemble: every good network with several metrics, as far as they fit, and when another is preferred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.backbones import View
from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.search.best_outcomes import KEPT, NEARLY_AS_GOOD, BestOutcomes, best_of_each_metric
from autometa.search.candidates import Candidate, FamilyCandidate, HeadCandidate, Outcome
from autometa.search.ensembles import WeightedCandidate, ensembles
from autometa.search.final_choice import preferred

POOL = colour_pool(classes=8)
SPEC = EpisodeSpec(ways=(4, 4), shots=(1, 1), queries_per_class=4)
EPISODES = ValidationEpisodes(sample_episodes(POOL, np.arange(8), SPEC, 40, np.random.default_rng(0)))
NETS = {("a", ""): 0.3, ("a", "tuned"): 0.25, ("b", ""): 0.4, ("bad", ""): 5.0}
METRICS = {"white": 0.0, "l2": 0.02, "none": 3.0}


def noisy(noise: float, seed: int) -> Answer:
    """Right but for noise."""
    generator = torch.Generator().manual_seed(seed)
    scores = []
    for labels in EPISODES.labels:
        truth = torch.nn.functional.one_hot(labels, 4).float()
        scores.append(truth + noise * torch.randn(truth.shape, generator=generator))
    return EPISODES.measure(scores)


def outcome(view: View, metric: str, noise: float, head: str = "centroid") -> Outcome:
    """The noise is another one for every view and metric."""
    place = list(NETS).index((view.backbone, view.variant))
    seed = 97 * place + len(NETS) + list(METRICS).index(metric) + view.px + view.flip
    return Outcome(HeadCandidate(view, head, {"transform": metric}), "ok", 0.0, noisy(noise, seed))


def trained(family: str, noise: float) -> Outcome:
    return Outcome(FamilyCandidate(family, "a", 128), "ok", 0.0, noisy(noise, len(family) * 31))


DONE = [
    outcome(view, metric, noise + more + 0.05 * (view.px == 96) - 0.05 * view.flip)
    for (net, variant), noise in NETS.items()
    for view in (
        View(net, 128, variant=variant),
        View(net, 96, variant=variant),
        View(net, 128, flip=True, variant=variant),
    )
    for metric, more in METRICS.items()
]


EXPECTED = {View("a", 128), View("a", 128, variant="tuned"), View("b", 128)}


def broad(most_heads: int = 100, most_passes: int = 100) -> list[WeightedCandidate]:
    def fits(candidates: Sequence[Candidate]) -> bool:
        return len(candidates) <= most_heads and len({one.source for one in candidates}) <= most_passes

    return ensembles(DONE, EPISODES, fits, lambda view: view.px, 4)[-1]


def views_of(members: list[WeightedCandidate]) -> list[View]:
    return [one.view for one, _, _ in members if isinstance(one, HeadCandidate)]


def test_every_good_network_joins_with_the_metrics_that_are_nearly_as_good() -> None:
    members = broad()
    assert set(views_of(members)) == EXPECTED
    assert {weight for _, _, weight in members} == {1.0}
    heads = [one for one, _, _ in members if isinstance(one, HeadCandidate)]
    of_view = {view: [c.params["transform"] for c in heads if c.view == view] for view in EXPECTED}
    scores = {(o.view, o.candidate.record()["params"]["transform"]): o.score for o in DONE}
    for view, metrics in of_view.items():
        best = max(scores[view, metric] for metric in METRICS)
        assert set(metrics) == {m for m in METRICS if scores[view, m] >= best - NEARLY_AS_GOOD}
        assert "none" not in metrics


def test_other_networks_come_before_copies() -> None:
    names = {view.backbone for view in views_of(broad(most_passes=2))}
    assert len(names) == 2 and "b" in names


def test_a_network_joins_with_its_best_metric_where_more_do_not_fit() -> None:
    members = broad(most_heads=3)
    assert {view.backbone for view in views_of(members)} >= {"b"} and len(members) == 3


def test_outcomes_of_one_metric_count_once() -> None:
    view = View("a", 128)
    better, worse = outcome(view, "l2", 0.1), outcome(view, "l2", 0.9, head="ridge")
    other = outcome(view, "white", 0.5)
    assert best_of_each_metric([worse, other, better]) == [better, other]
    best_outcomes = BestOutcomes(lambda candidates: True)
    for one in (worse, other, better):
        best_outcomes.add(one)
    assert best_outcomes.outcomes == [better, other]
    for number in range(2 * KEPT):
        best_outcomes.add(outcome(view, "none", 0.2 + 0.01 * number))
    assert len(best_outcomes.outcomes) == 3


def test_meta_test_is_reserved_for_the_broad_ensemble_and_the_best_trained_learner() -> None:
    best_outcomes = BestOutcomes(lambda candidates: len(candidates) <= 100)
    for one in DONE:
        best_outcomes.add(one)
    heads = {candidate.identity for candidate, _, _ in broad()}
    assert {one.identity for one in best_outcomes.reserved} == heads
    for name, noise in (("maml", 0.4), ("anil", 0.2), ("pmf", 5.0)):
        best_outcomes.add(trained(name, noise))
    assert {one.identity for one in best_outcomes.reserved[:-1]} == heads
    assert best_outcomes.reserved[-1] == FamilyCandidate("anil", "a", 128)
    narrow = BestOutcomes(lambda candidates: len(candidates) <= 2)
    for one in DONE:
        narrow.add(one)
    assert len(narrow.reserved) == 2


@pytest.mark.parametrize(("gain", "expected"), [(0.0, 2), (0.004, 2), (0.2, 1)])
def test_the_broadest_is_kept_unless_another_is_clearly_better(gain: float, expected: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 60)
    base = np.full(60, 0.5)
    answers = [Answer((), base - 0.3), Answer((), base + gain + noise - noise.mean()), Answer((), base)]
    found = [([], answer) for answer in answers]
    assert preferred(found) is found[expected]
