"""Planning, search and the controller, with a tiny network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.artifact import load_description
from autometa.backbones import View
from autometa.bench import Bench
from autometa.budget import MemoryBudget, TimeBudget
from autometa.config import Settings
from autometa.controller import Controller
from autometa.episodes import EpisodeSpec
from autometa.errors import BudgetExhausted, WeightsError
from autometa.evaluation import Answer
from autometa.families import FAMILIES
from autometa.forecast import Limits
from autometa.heads import HEADS, find_metric
from autometa.learner import FittedLearner
from autometa.outcomes import Candidate, Outcome, Pruned, guarded, one_error_rule
from autometa.planning import Costs, TestSpec, affordable, make_plan, meta_test_s
from autometa.search import AT_ONCE, CARRIED_ON, PATIENCE, SAFE, Search

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
TEST = TestSpec(tasks=20, episodes=SPEC, images=100, protocol="within-domain")
SMALL, LARGE = View("net", 64), View("net", 128)
COSTS = Costs(start_s=2.0, image_s={SMALL: 0.01, LARGE: 0.04})


def test_meta_test_is_reserved_by_what_it_costs() -> None:
    assert meta_test_s([LARGE], TEST, COSTS) > meta_test_s([SMALL], TEST, COSTS) > 2.0
    more = TestSpec(tasks=200, episodes=SPEC, images=1000, protocol="x")
    assert meta_test_s([SMALL], more, COSTS) > meta_test_s([SMALL], TEST, COSTS)
    unknown = TestSpec(tasks=20, episodes=SPEC, images=None, protocol="x")
    assert unknown.embedded_images == 20 * SPEC.mean_images


def test_the_plan_leaves_the_search_what_remains() -> None:
    plan = make_plan(60, [SMALL], TEST, COSTS)
    assert plan.meta_test_s == meta_test_s([SMALL], TEST, COSTS)
    assert 0 < plan.search_s < 60 - plan.meta_test_s
    assert "meta-test" in plan.why
    assert make_plan(3, [SMALL], TEST, COSTS).search_s < 0


def test_views_are_affordable_together_or_not() -> None:
    need = meta_test_s([SMALL], TEST, COSTS)
    assert affordable([SMALL], need + 0.1, {}, TEST, COSTS)
    assert not affordable([SMALL], need + 0.1, {SMALL: 1000}, TEST, COSTS)
    assert not affordable([SMALL, LARGE], need + 0.1, {}, TEST, COSTS)


def answer_of(mean: float, noise: float = 0.0) -> Answer:
    return Answer((), mean + noise * np.random.default_rng(0).normal(size=50))


def test_what_exploring_had_no_time_for_comes_before_the_sampler_on_cheap_views() -> None:
    tried: list[Candidate] = []

    def attempt(candidate: Candidate) -> Outcome:
        tried.append(candidate)
        return Outcome(candidate, "failed", 0.0)

    search = Search([SMALL, LARGE], attempt, seed=0)
    turns = iter(range(3))
    search.explore(lambda: next(turns) < 2)
    guesses = sum(len(spec.first_guesses(name)) for name, spec in HEADS.items())
    assert len(tried) == 3 < SAFE < guesses
    search.refine(lambda: len(tried) < guesses + 20, 500, lambda view: view.source == SMALL.source)
    assert {c.head for c in tried[:guesses]} == set(HEADS)
    assert {c.view for c in tried} == {SMALL}


def test_search_tries_every_first_guess_and_then_improves() -> None:
    tried: list[Candidate] = []

    def attempt(candidate: Candidate) -> Outcome:
        tried.append(candidate)
        best = candidate.view == LARGE and candidate.head == "ridge"
        return Outcome(candidate, "ok", 0.0, answer_of(0.9 if best else 0.4 if candidate.view.flip else 0.5))

    search = Search([SMALL, LARGE], attempt, seed=0)
    search.explore(lambda: True)
    search.refine(lambda: True, 300)
    guesses = sum(len(spec.first_guesses(name)) for name, spec in HEADS.items())
    on_first = [*tried[:SAFE], *tried[SAFE + AT_ONCE : guesses + AT_ONCE]]
    assert {c.head for c in on_first} == set(HEADS)
    assert {c.view for c in on_first} == {SMALL}
    at_once = tried[SAFE : SAFE + AT_ONCE]
    assert {c.view for c in at_once} == {LARGE}, "the best of the safe ones, before all others"
    assert [find_metric(c.params["transform"]).shrinkage is None for c in at_once] == [True, False]
    carried_on = tried[guesses + AT_ONCE : guesses + CARRIED_ON]
    assert {c.view for c in carried_on} == {LARGE}
    mirrored = tried[guesses + CARRIED_ON : guesses + 2 * CARRIED_ON]
    assert {c.view for c in mirrored} == {replace(SMALL, flip=True)}
    assert len(tried) > guesses + 2 * CARRIED_ON
    best = max(search.outcomes, key=lambda o: o.score)
    assert (best.candidate.view, best.candidate.head) == (LARGE, "ridge")
    assert len(search.outcomes) == len({str(o.candidate) for o in search.outcomes})


def test_further_views_meet_the_best_heads_and_what_is_known_is_not_tried_again() -> None:
    tried: list[Candidate] = []

    def attempt(candidate: Candidate) -> Outcome:
        tried.append(candidate)
        return Outcome(candidate, "ok", 0.0, answer_of(0.9 if candidate.head == "plda" else 0.5))

    search = Search([SMALL], attempt, seed=0)
    search.explore(lambda: True)
    before = len(tried)
    tuned = View("net+tuned", 64)
    search.widen([tuned], lambda: True)
    assert len(tried) == before + CARRIED_ON
    assert {c.view for c in tried[before:]} == {tuned}
    assert tried[before].head == "plda"
    search.refine(lambda: len(tried) < before + CARRIED_ON + 15, 10_000)
    assert len({str(c) for c in tried}) == len(tried)
    search.widen([], lambda: True)


def test_families_join_the_space_with_options_of_their_own() -> None:
    """First guesses in the order given; then the sampler asks for heads and for families that are affordable."""
    tried: list[Candidate] = []

    def attempt(candidate: Candidate) -> Outcome:
        tried.append(candidate)
        return Outcome(candidate, "ok", 0.0, answer_of(0.9 if candidate.head == "maml" else 0.5))

    search = Search([SMALL], attempt, seed=0)
    search.explore(lambda: True)
    before = len(tried)
    views = {View(f"net~{name}", 64): FAMILIES[name] for name in ("maml", "adapters", "anil")}
    search.join(views, lambda: len(tried) < before + 2)
    maml, adapters = tried[before:]
    assert (maml.head, maml.params, maml.origin) == ("maml", {"rate": 1.0, "test_steps": 3}, "family")
    assert (adapters.view, adapters.params) == (View("net~adapters", 64), {"steps": 8, "rate": 0.1})
    search.refine(lambda: len(tried) < before + 20, 10_000)
    sampled = tried[before + 2 :]
    assert {c.origin for c in sampled} == {"sampler"}
    rates = {c.params["rate"] for c in sampled if c.head == "maml"}
    assert len(rates) > 1 and all(0.05 <= rate <= 5 for rate in rates)
    search.refine(lambda: len(tried) < before + 40, 10_000, lambda view: view == SMALL)
    assert {c.view for c in tried[before + 20 :]} == {SMALL}, "there is no time for families any more"
    assert len(tried) > before + 20
    tuned = View("net+tuned", 64)
    search.widen([tuned], lambda: True)
    assert {c.view for c in tried[-CARRIED_ON:]} == {tuned}
    assert {c.head for c in tried[-CARRIED_ON:]} <= set(HEADS)


def test_pruned_trials_are_told_to_the_sampler() -> None:
    def measure(_: Candidate) -> Answer:
        raise Pruned(0.4, "-9.0 ± 2.0 points from the best on 30 episodes")

    def attempt(candidate: Candidate) -> Outcome:
        return guarded(measure, candidate)

    search = Search([SMALL], attempt, seed=0)
    search.explore(lambda: True)
    search.refine(lambda: True, 10)
    assert {outcome.status for outcome in search.outcomes} == {"pruned"}
    line = json.loads(search.outcomes[0].journal_line())
    assert line["status"] == "pruned" and "points" in line["note"] and "accuracy" not in line


def test_search_ends_when_told_when_idle_and_survives_failures() -> None:
    def failing(candidate: Candidate) -> Outcome:
        return Outcome(candidate, "failed", 0.0, note="no luck")

    search = Search([SMALL], failing, seed=0)
    search.explore(lambda: True)
    search.refine(lambda: True, 10_000)
    guesses = sum(len(spec.first_guesses(name)) for name, spec in HEADS.items())
    assert guesses < len(search.outcomes) <= guesses + CARRIED_ON + PATIENCE
    stopped = Search([SMALL], failing, seed=0)
    stopped.explore(lambda: len(stopped.outcomes) < 2)
    stopped.refine(lambda: len(stopped.outcomes) < 2, 100)
    assert len(stopped.outcomes) == 2


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BudgetExhausted("late"), "timeout"),
        (torch.linalg.LinAlgError("singular"), "failed"),
        (ValueError("x"), "failed"),
    ],
)
def test_failures_are_outcomes(error: Exception, status: str) -> None:
    def measure(_: Candidate) -> Answer:
        raise error

    outcome = guarded(measure, Candidate(SMALL, "ridge", {}))
    assert outcome.status == status
    assert str(error) in json.loads(outcome.journal_line())["note"]


def test_the_cheaper_view_leads_within_a_standard_error() -> None:
    cost = {SMALL: 1.0, LARGE: 4.0}
    dear = Outcome(Candidate(LARGE, "ridge", {}), "ok", 0, answer_of(0.80, 0.1))
    shift = np.random.default_rng(1).normal(0, 0.1, 50)
    assert dear.answer is not None
    near = Answer((), dear.answer.accuracies - 0.005 + shift - shift.mean())
    cheap = Outcome(Candidate(SMALL, "ridge", {}), "ok", 0, near)
    assert one_error_rule([dear, cheap], lambda v: cost[v])[0] is cheap
    far = Outcome(Candidate(SMALL, "ridge", {}), "ok", 0, answer_of(0.5, 0.1))
    assert one_error_rule([dear, far], lambda v: cost[v])[0] is dear


def test_the_bench_keeps_classes_and_images_apart() -> None:
    pool = colour_pool(classes=16, datasets=2)
    bench = Bench.of(pool, SPEC, 10, 10_000, np.random.default_rng(0))
    labels = pool.labels[bench.keys]
    assert set(labels[: bench.size]).isdisjoint(labels[bench.size :])
    assert len(set(bench.keys)) == len(bench.keys)
    rows = np.concatenate([e.query_rows for e in bench.episodes.episodes])
    assert rows.max() < bench.size
    assert bench.episodes.episodes != bench.fresh.episodes


def test_metrics_are_fitted_on_all_classes_in_the_end() -> None:
    pool = colour_pool(classes=16)
    bench = Bench.of(pool, SPEC, 10, 10_000, np.random.default_rng(0))
    features = torch.randn(len(bench.keys), 6, generator=torch.Generator().manual_seed(0))
    features[: bench.size] += 5
    half = bench.metric(SMALL, features, "cl2n").mean
    whole = bench.metric(SMALL, features, "cl2n", every_class=True).mean
    assert half is not None and whole is not None
    torch.testing.assert_close(half, features[bench.size :].mean(0))
    torch.testing.assert_close(whole, features.mean(0))


def test_few_images_are_enough_to_rank_views() -> None:
    pool = colour_pool(classes=40)
    few = Bench.few(
        pool, EpisodeSpec(ways=(2, 20), shots=(1, 20), queries_per_class=20), np.random.default_rng(0)
    )
    assert len(few.images) == len(few.keys) == few.size <= 200
    np.testing.assert_array_equal(few.images, pool.images[few.keys])
    assert {len(e.query_rows) // e.ways for e in few.episodes.episodes} == {4}
    assert max(e.ways for e in few.episodes.episodes) <= 10


def limits(seconds: float) -> Limits:
    budget = TimeBudget.of(seconds)
    return Limits(budget, budget, MemoryBudget(8 * 2**30))


def controller(tmp_path: Path, backbone: str, seconds: float, lines: list[str]) -> Controller:
    settings = Settings(
        backbones=(backbone,),
        resolutions=(32, 48),
        validation_episodes=20,
        max_trials=24,
        tune_steps=40,
        families=("pmf",),
    )
    return Controller(settings, TEST, limits(seconds), tmp_path, lines.append, start_s=1.0)


def test_a_run_ends_with_a_saved_learner_that_it_can_explain(tmp_path: Path, tiny_backbone: str) -> None:
    lines: list[str] = []
    learner = controller(tmp_path, tiny_backbone, 120, lines).run(colour_pool(classes=16))
    saved = FittedLearner.load(tmp_path)
    assert saved.members == learner.members
    assert saved.validation["stage"] == "final"
    assert 0.5 < saved.validation["normalised_accuracy"] <= 1
    assert 0 <= saved.validation["calibration_error"] < 1
    lines_of_journal = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    journal = [row for row in lines_of_journal if "head" in row]
    assert {row["head"] for row in journal} == set(HEADS) | {"pmf"}
    assert {row["status"] for row in journal if row["head"] in HEADS} <= {"ok", "pruned"}
    assert any(row["status"] == "ok" for row in journal if row["head"] == "pmf")
    assert any(row["view"].startswith(f"{tiny_backbone}+tuned@") for row in journal)
    assert any(line.startswith("tuned") for line in lines)
    assert any(line.startswith("plan:") for line in lines)
    assert any(line.startswith("chosen:") and "calibration error" in line for line in lines)
    stages = json.loads((tmp_path / "stages.json").read_text())
    assert sorted(stages, key=str) == sorted((row for row in lines_of_journal if "stage" in row), key=str)
    told = {row.pop("stage"): row for row in stages}
    assert set(told) == {
        *(
            "bootstrap",
            "probe",
            "rank",
            "search",
            "tune",
            "families",
            "ensemble",
            "save",
            "tune_again",
            "meta_test",
        )
    }
    assert told["meta_test"]["predicted_s"] > 0 and told.pop("meta_test")["actual_s"] is None
    assert all(row["actual_s"] is not None for row in told.values())
    assert 0 < told["search"]["actual_s"] < told["search"]["predicted_s"]


def test_the_bootstrap_is_a_valid_learner(tmp_path: Path, tiny_backbone: str) -> None:
    controller(tmp_path, tiny_backbone, 100, []).bootstrap()
    assert load_description(tmp_path).validation == {"stage": "bootstrap"}
    pool = colour_pool()
    rows = np.concatenate([pool.rows_of_class[c][:2] for c in range(3)])
    predictor = FittedLearner.load(tmp_path).fit(pool.images[rows], np.repeat(np.arange(3), 2), 3)
    assert predictor.predict(pool.images[:5]).shape == (5, 3)


def test_without_time_the_bootstrap_stays(tmp_path: Path, tiny_backbone: str) -> None:
    lines: list[str] = []
    learner = controller(tmp_path, tiny_backbone, 0.5, lines).run(colour_pool())
    assert len(learner.members) == 1
    assert FittedLearner.load(tmp_path).validation["stage"] == "bootstrap"


def test_time_running_out_in_the_search_is_no_error(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object, **__: object) -> None:
        raise BudgetExhausted("late")

    lines: list[str] = []
    run = controller(tmp_path, tiny_backbone, 120, lines)
    monkeypatch.setattr(Bench, "of", late)
    assert run.run(colour_pool()).members
    assert "stopped early: late" in lines


def test_no_backbone_is_an_error_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autometa.controller.installed_backbones", list)
    run = Controller(Settings(), TEST, limits(10), tmp_path, print)
    with pytest.raises(WeightsError, match="pip install"):
        run.bootstrap()
