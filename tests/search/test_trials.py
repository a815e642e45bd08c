"""Trials of a search: which layers are tried, what is dropped, what is reserved."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.backbones import STAGES, View
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.errors import BudgetExhausted
from autometa.core.settings import Settings
from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.evaluation.validation_set import ValidationSet
from autometa.planning.stage_log import StageLog
from autometa.search.best_outcomes import KEPT, without_scores
from autometa.search.candidates import HeadCandidate, Outcome, Pruned
from autometa.search.final_choice import FinalChoice
from autometa.search.search import Search
from autometa.search.trials import Trials

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 3), queries_per_class=4)
POOL = colour_pool(classes=16)
VALIDATION_SET = ValidationSet.of(
    POOL, TestSpec(1, SPEC, None, "within-domain"), 60, 10_000, np.random.default_rng(0)
)
A, B, C = View("a", 64), View("b", 64), View("c", 64)
NOISE = {"a": 0.1, "b": 0.15, "c": 3.0}


class Store:
    """Features of three backbones: the class colours, with more or less noise."""

    def missing(self, view: View, keys: list[int]) -> int:
        return 0

    def embed(self, view: View, images: Any, keys: list[int], budget: TimeBudget) -> torch.Tensor:
        generator = torch.Generator().manual_seed(ord(view.backbone))
        colours = torch.from_numpy(images).float().mean((2, 3)) / 255
        noise = torch.randn(colours.shape, generator=generator)
        return torch.nn.functional.pad(colours + NOISE[view.backbone] * noise, (0, 2), value=0.3)


def trials(told: list[Outcome], widths: tuple[str, ...] = STAGES, cost_s: float = 1.0) -> Trials:
    budget = TimeBudget.of(100)
    forecast: Any = SimpleNamespace(
        store=Store(),
        shelf=lambda name, variant="": SimpleNamespace(widths=dict.fromkeys(widths, 8)),
        limits=Limits(budget, budget, MemoryBudget(2**40)),
        policy=POLICY,
        image_s=lambda view: 0.0,
        fits=lambda views, to_embed=None, *, learners=(), spare_s=0.0: True,
        meta_test_s=lambda views, learners=(): cost_s * len(set(views)),
        spare_s=lambda views, learners=(): 50.0,
        finish_s=3.0,
    )
    return Trials(
        VALIDATION_SET,
        A,
        forecast,
        told.append,
        print,
        Settings(tune_steps=0),
        StageLog(None),
        POOL.dataset_of_class,
    )


def centroid(view: View, transform: str = "none") -> HeadCandidate:
    return HeadCandidate(view, "centroid", {"transform": transform, "metric": "euclidean"})


def test_layers_that_a_network_lacks_are_not_tried() -> None:
    assert trials([]).layered(A) == [A, View("a", 64, STAGES)]
    assert trials([], widths=("last",)).layered(A) == [A]


def test_another_pass_is_not_dropped_however_bad() -> None:
    told: list[Outcome] = []
    run = trials(told)
    good, other = run.attempt(centroid(A)), run.attempt(centroid(C))
    assert (good.status, other.status) == ("ok", "ok")
    assert other.score < good.score - 0.3
    assert [without_scores(outcome) for outcome in told] == [good, other]


def test_a_hopeless_candidate_of_the_same_pass_is_dropped_early(monkeypatch: pytest.MonkeyPatch) -> None:
    run = trials([])
    good = run.attempt(centroid(A))
    monkeypatch.setitem(NOISE, "a", 50.0)
    hopeless = run.attempt(centroid(A, "l2"))
    assert good.score > 0.5
    assert hopeless.status == "pruned" and hopeless.first_look_accuracy < good.score
    assert "points from the best on 30 episodes" in hopeless.note


def test_meta_test_is_reserved_for_the_best_of_several_passes() -> None:
    def reserved(run: Trials) -> list[View]:
        return [one.view for one in run.reserved if isinstance(one, HeadCandidate)]

    run = trials([])
    assert reserved(run) == [A]
    for view in (A, B, C):
        run.attempt(centroid(view))
    assert reserved(run)[0] in (A, B) and set(reserved(run)) == {A, B}  # c is far behind
    dear = trials([], cost_s=40.0)
    for view in (A, B):
        dear.attempt(centroid(view))
    assert len(dear.reserved) == 1


def test_the_best_network_is_tuned_first() -> None:
    run = trials([])
    for view in (B, A, C):
        run.attempt(centroid(view))
    best = sorted((A, B), key=lambda view: -run.attempt(centroid(view)).score)
    assert run._to_tune() == best


def test_scores_are_kept_for_the_best_of_every_pass_alone() -> None:
    run = trials([])
    seen = [
        run.attempt(centroid(A, name)) for name in ("none", "l2", "root_l2", "cl2n", "root_cl2n", "rank_l2")
    ]
    ok = [outcome for outcome in seen if outcome.answer is not None]
    assert ok and all(outcome.answer.scores == () for outcome in ok if outcome.answer)
    kept = run.best_outcomes.outcomes
    assert len(kept) == min(len(ok), KEPT) and all(one.answer and one.answer.scores for one in kept)
    assert kept[0].score == max(outcome.score for outcome in ok)


def test_a_quick_answer_fails_softly(monkeypatch: pytest.MonkeyPatch) -> None:
    run, few = trials([]), ValidationSet.small(POOL, SPEC, np.random.default_rng(0))
    good, bad = (few.episodes.measure(run.quick_answer(view, few)).mean for view in (A, C))
    assert good > bad > -1

    def broken(*_: Any) -> torch.Tensor:
        raise RuntimeError("broken engine")

    monkeypatch.setattr(Store, "embed", broken)
    with pytest.raises(BudgetExhausted, match="broken engine"):
        run.quick_answer(A, few)


def test_what_is_known_so_far_makes_an_ensemble() -> None:
    run = trials([])
    choice = FinalChoice(run, 4)
    assert choice.so_far() == ([], None)
    for candidate in (centroid(A), centroid(A, "l2"), centroid(B), centroid(C)):
        run.attempt(candidate)
    members, answer = choice.so_far()
    assert {one.view for one, _, _ in members if isinstance(one, HeadCandidate)} == {
        A,
        B,
    } and answer is not None
    assert answer.mean >= max(one.score for one in run.best_outcomes.outcomes) - 0.05


def test_what_is_known_can_be_kept_between_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    run = trials([])
    monkeypatch.setattr(Trials, "_try_families", lambda *_: None)
    monkeypatch.setattr(Trials, "_to_tune", lambda _: [])
    known = [len(run.best_outcomes.outcomes) for _ in run.run(Search([A], run.attempt, seed=0), search_s=0.0)]
    assert len(known) == 2 and known[0] > 0  # before families, and before the sampler


def test_a_trained_learner_far_behind_the_best_head_is_dropped_early() -> None:
    run = trials([])
    best = run.attempt(centroid(A))
    asked: list[int] = []

    def answers(accuracy: float, episodes: ValidationEpisodes) -> Answer:
        asked.append(len(episodes.episodes))
        spread = np.linspace(-0.1, 0.1, len(episodes.episodes))
        return Answer((), accuracy + spread)

    run._look_at_family(lambda episodes: answers(best.score, episodes))
    with pytest.raises(Pruned, match="from the best on 30 episodes"):
        run._look_at_family(lambda episodes: answers(best.score - 0.5, episodes))
    assert asked == [30, 30]
