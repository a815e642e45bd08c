"""Which views are worth a trial, and which candidates may join the ensemble."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from synthetic import colour_pool

from autometa.backbones import View
from autometa.core.errors import BudgetExhausted
from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.evaluation.validation_episodes import ValidationEpisodes
from autometa.search.candidates import HeadCandidate, Outcome
from autometa.search.ensembles import ensembles
from autometa.search.ranking import Ranking

NAMES = ("a", "b", "c", "d")
SIZES = [[View(name, px) for name in NAMES] for px in (128, 224, 96)]
NOISE = {"a": 0.9, "b": 0.84, "c": 0.86, "d": 4.0}
POOL = colour_pool(classes=12)
SPEC = EpisodeSpec(ways=(5, 5), shots=(1, 1), queries_per_class=4)
EPISODES = ValidationEpisodes(sample_episodes(POOL, np.arange(12), SPEC, 60, np.random.default_rng(0)))


def noisy(seed: int, noise: float) -> list[torch.Tensor]:
    """Log-probabilities that are right but for noise."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for labels in EPISODES.labels:
        truth = torch.nn.functional.one_hot(labels, 5).float()
        found.append((truth + noise * torch.randn(truth.shape, generator=generator)).log_softmax(-1))
    return found


def answer(view: View) -> list[torch.Tensor]:
    """Backbones make mistakes of their own, in all sizes the same; finer sizes make fewer."""
    noise = NOISE[view.backbone] + {128: 0.0, 224: -0.05, 96: 0.6}[view.px]
    return noisy(NAMES.index(view.backbone), noise)


def ranking(
    answer: Callable[[View], list[torch.Tensor]] = answer,
    goes_on: Callable[[View], bool] = lambda view: True,
    cost: Callable[[View], float] = lambda view: 0.0,
) -> Ranking:
    return Ranking(EPISODES, answer, cost, goes_on)


def test_only_the_best_backbones_are_looked_at_in_all_sizes() -> None:
    asked: list[View] = []

    def watched(view: View) -> list[torch.Tensor]:
        asked.append(view)
        return answer(view)

    found = ranking(watched).rank(SIZES)
    # 96 is not needed any more; the last: a good backbone in the best size
    assert asked == [*SIZES[0], View("b", 224), View("c", 224), View("a", 224)]
    assert found[0].px == 224 and found[0].backbone in ("b", "c")
    assert not {"d"} & {view.backbone for view in found}


def test_what_another_backbone_adds_counts_more_than_the_same_one_again() -> None:
    found = ranking().rank(SIZES)
    assert {view.backbone for view in found[:3]} == {"a", "b", "c"}
    again = View(found[0].backbone, 128)
    assert again not in found[:3]
    assert EPISODES.measure(answer(again)).mean > EPISODES.measure(answer(View("a", 128))).mean


def test_a_view_that_costs_more_than_it_adds_is_left_out() -> None:
    free = ranking().rank(SIZES)
    dear = ranking(cost=lambda view: 5.0 if view.px == 224 else 0.0).rank(SIZES)
    assert free[0].px == 224
    assert dear and all(view.px == 128 for view in dear)


def test_what_there_was_no_time_to_look_at_comes_last() -> None:
    answers = iter([True, True, False, False, False])
    assert ranking(goes_on=lambda view: next(answers)).rank(SIZES[:1]) == [
        View("b", 128),
        View("a", 128),
        View("c", 128),
        View("d", 128),
    ]
    assert ranking(goes_on=lambda view: False).rank(SIZES[:1]) == SIZES[0]


def test_a_coarser_size_is_looked_at_where_a_finer_one_does_not_fit() -> None:
    asked: list[View] = []

    def dear(view: View) -> list[torch.Tensor]:
        asked.append(view)
        if view.px == 224:
            raise BudgetExhausted("late")
        return answer(view)

    ranking(dear).rank(SIZES)
    assert View("b", 96) in asked


def test_a_view_that_does_not_fit_is_no_error() -> None:
    def late(view: View) -> list[torch.Tensor]:
        if view.backbone == "b":
            raise BudgetExhausted("late")
        return answer(view)

    assert ranking(late).rank(SIZES[:1]) == [View("c", 128), View("a", 128), View("b", 128)]


def test_the_ensemble_has_members_that_see_different_things() -> None:
    """Thirty candidates on one view make the same mistakes; a worse one on another view makes others."""

    def outcome(view: View, number: int, seed: int, noise: float) -> Outcome:
        answer = EPISODES.measure(noisy(seed, noise))
        return Outcome(HeadCandidate(view, "ridge", {"n": number, "transform": "l2"}), "ok", 0.0, answer)

    alike = [outcome(SIZES[0][0], n, 0, 0.5 + 0.001 * n) for n in range(30)]
    other = outcome(SIZES[0][1], 0, 1, 0.6)
    assert other.score < min(o.score for o in alike)
    done = [*alike, other]
    alone, grown, *even = ensembles(done, EPISODES, lambda _: True, lambda _: 1.0, 4)
    assert len(alone) == 1
    assert SIZES[0][1].source in {candidate.source for candidate, _, _ in grown}
    assert [weight for _, _, weight in even[0]] == [1.0, 1.0] if even else grown[0][2] == 1.0
    cheap = ensembles(
        done, EPISODES, lambda candidates: len({one.source for one in candidates}) == 1, lambda _: 1.0, 4
    )
    assert all(len({candidate.source for candidate, _, _ in members}) == 1 for members in cheap)
