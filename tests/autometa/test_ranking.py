"""Which views are worth a trial, and which candidates may join the ensemble."""

from __future__ import annotations

import numpy as np
import torch
from synthetic import colour_pool

from autometa.backbones import View
from autometa.episodes import EpisodeSpec, sample_episodes
from autometa.errors import BudgetExhausted
from autometa.evaluation import ValidationEpisodes
from autometa.ranking import ranked
from autometa.search import Candidate, Outcome
from autometa.selection import choose

NAMES = ("a", "b", "c", "d")
SIZES = [[View(name, px) for name in NAMES] for px in (128, 224, 96)]
QUALITY = {"a": 0.7, "b": 0.8, "c": 0.74, "d": 0.5}


def score(view: View) -> float:
    return QUALITY[view.backbone] + {128: 0.0, 224: 0.05, 96: -0.2}[view.px]


def test_only_the_best_backbones_are_looked_at_in_other_sizes() -> None:
    asked: list[View] = []

    def watched(view: View) -> float:
        asked.append(view)
        return score(view)

    found = ranked(SIZES, watched, lambda: True)
    assert asked == [*SIZES[0], View("b", 224), View("c", 224), View("b", 96), View("c", 96)]
    assert found == [View("b", 224), View("b", 128), View("c", 224)]


def test_what_there_was_no_time_to_score_comes_last() -> None:
    answers = iter([True, True, False, False])
    assert ranked(SIZES[:1], score, lambda: next(answers)) == [View("b", 128), View("c", 128), View("d", 128)]
    assert ranked(SIZES[:1], score, lambda: False) == SIZES[0]


def test_a_view_that_does_not_fit_is_no_error() -> None:
    def late(view: View) -> float:
        if view.backbone == "b":
            raise BudgetExhausted("late")
        return score(view)

    assert ranked(SIZES[:1], late, lambda: True) == [View("c", 128), View("a", 128), View("b", 128)]


def test_the_ensemble_has_members_that_see_different_things() -> None:
    """Thirty candidates on one view make the same mistakes; a worse one on another view makes others."""
    pool = colour_pool(classes=12)
    spec = EpisodeSpec(ways=(5, 5), shots=(1, 1), queries_per_class=4)
    rng = np.random.default_rng(0)
    episodes = ValidationEpisodes(sample_episodes(pool, np.arange(12), spec, 60, rng))

    def outcome(view: View, number: int, seed: int, noise: float) -> Outcome:
        generator = torch.Generator().manual_seed(seed)
        scores = []
        for labels in episodes.labels:
            truth = torch.nn.functional.one_hot(labels, 5).float()
            scores.append(truth + noise * torch.randn(truth.shape, generator=generator))
        return Outcome(Candidate(view, "ridge", {"n": number}), "ok", 0.0, episodes.measure(scores))

    alike = [outcome(SIZES[0][0], n, 0, 0.5 + 0.001 * n) for n in range(30)]
    other = outcome(SIZES[0][1], 0, 1, 0.6)
    assert other.score < min(o.score for o in alike)
    members = choose([*alike, other], episodes, lambda _: True, lambda _: 1.0, 4)
    assert SIZES[0][1] in {candidate.view for candidate, _, _ in members}
    alone = choose([*alike, other], episodes, lambda views: len(set(views)) == 1, lambda _: 1.0, 4)
    assert len({candidate.view for candidate, _, _ in alone}) == 1
