"""What the arena says of its results: statistics, rows and tables, on made-up results."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_arena_report")


@pytest.fixture
def statistics(report: ModuleType) -> ModuleType:
    return importlib.import_module("_arena_results")


def result(report: ModuleType, bundle: str, accuracies: list[float], **more: object) -> object:
    fields = {
        "bundle": bundle, "dataset": "A", "budget_s": 60.0, "seed": 0, "settings": "", "exit_status": 0,
        "drawn": "", "wall_s": 50.0, "overrun": False, "unanswered": 0, "first_learner_s": None, "reason": "",
        "machine": "",
    }  # fmt: skip
    return report.Result(accuracies=tuple(accuracies), **fields | more)


def test_ranks_share_ties_and_leave_out_what_not_all_have(statistics: ModuleType) -> None:
    results = [
        result(statistics, "x", [0.9, 0.7]),
        result(statistics, "y", [0.7, 0.9]),
        result(statistics, "z", [0.1, 0.1]),
        *(
            result(statistics, name, [value], dataset="B")
            for name, value in (("x", 0.1), ("y", 0.2), ("z", 0.3))
        ),
        result(statistics, "z", [1.0], dataset="C"),
    ]
    (of,) = statistics.rounds(results)
    assert statistics.average_ranks(of) == {"x": 2.25, "y": 1.75, "z": 2.0}
    assert len(of.cells) == 3
    only = statistics.rounds([result(statistics, "x", [0.5]), result(statistics, "y", [0.5], dataset="B")])
    assert statistics.average_ranks(only[0]) == {}


def test_an_estimate_is_over_the_tasks_of_all_seeds(statistics: ModuleType) -> None:
    runs = [result(statistics, "x", [0.2, 0.4], seed=1), result(statistics, "x", [0.6, 0.8], seed=0)]
    found = statistics.estimate(runs)
    scores = np.array([20.0, 40.0, 60.0, 80.0])
    assert found.mean == pytest.approx(50)
    assert found.worst_seed == pytest.approx(30)
    assert found.ci95 == pytest.approx(3.182446 * scores.std(ddof=1) / 2)
    assert found.seed_sd == pytest.approx(np.std([30, 70], ddof=1))
    assert statistics.estimate(runs[:1]).seed_sd is None


def test_a_run_that_was_not_scored_counts_as_chance(report: ModuleType, statistics: ModuleType) -> None:
    results = [
        result(report, "autometa", [0.8, 0.6], task_sets=("A", "A"), drawn="these"),
        result(report, "autometa", [0.9, 0.9], seed=1),
        result(report, "fixed", [], exit_status=2, reason="it is broken"),
        result(report, "fixed", [0.9, 0.9], seed=1),
    ]
    (of,) = statistics.rounds(results)
    lost = of.cells["A", 0]["fixed"]
    assert (lost.accuracies, lost.drawn, lost.unanswered) == ((0.0, 0.0), "these", 2)
    found = statistics.compare(of, "autometa", "fixed")
    assert (found.gain, found.seed_sd) == (pytest.approx(35), pytest.approx(70 / np.sqrt(2)))
    rows = {row["name"]: row for row in report.rows(results)}
    assert rows["arena/60/fixed/A"]["value"] == pytest.approx(45)
    assert rows["arena/60/fixed/A"]["seed_sd"] == pytest.approx(90 / np.sqrt(2))
    assert rows["arena/60/autometa/gain_over_fixed"]["seed_sd"] == pytest.approx(70 / np.sqrt(2))
    table = report.markdown(results, "autometa")
    assert "- Failed, counts as chance: fixed on A, 60 s, seed 0: it is broken" in table
    assert "| 45.0 ± 82.7 (sd 63.6, worst 0.0) |" in table


def test_where_nobody_was_scored_all_of_the_tasks_that_were_asked_for_are_chance(
    statistics: ModuleType,
) -> None:
    settings = "--tasks-per-dataset 3 --ways 5"
    results = [result(statistics, "x", [], settings=settings, dataset="A->B+C")]
    (of,) = statistics.rounds(results)
    assert of.cells["A->B+C", 0]["x"].accuracies == (0.0,) * 6
    with pytest.raises(ValueError, match=r"x on A, 60 s, seed 0: .*--tasks-per-dataset"):
        statistics.rounds([result(statistics, "x", [])])


def test_plots_have_only_what_all_of_their_points_have_in_common(
    report: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    plots, statistics = importlib.import_module("_arena_plots"), importlib.import_module("_arena_results")
    at = {(20.0, 0): 0.2, (20.0, 1): 0.9, (60.0, 0): 0.4}
    results = [
        result(report, name, [value + extra], budget_s=budget_s, seed=seed)
        for (budget_s, seed), value in at.items()
        for name, extra in (("x", 0.0), ("y", 0.1))
    ]
    results += [result(report, "z", [1.0], budget_s=20.0)]
    results += [result(report, name, [0.5], budget_s=20.0, seed=7, dataset="B") for name in ("x", "y")]
    results += [result(report, "x", [0.5], budget_s=60.0, seed=8, dataset="B")]
    of_budgets = statistics.rounds(results)
    curves = plots.accuracy_curves(of_budgets)
    assert list(curves) == ["A"] and "B: no seed is common" in capsys.readouterr().out
    seeds, of_bundles = curves["A"]
    assert seeds == [0]
    assert [(x, y) for x, y, _ in of_bundles["x"]] == [(20.0, pytest.approx(20)), (60.0, pytest.approx(40))]
    pairs, ranks = plots.rank_curves(of_budgets)
    assert pairs == 1
    assert ranks == {name: [(20.0, rank, 0.0), (60.0, rank, 0.0)] for name, rank in (("x", 2.0), ("y", 1.0))}


def test_a_plot_of_a_run_across_domains_is_of_one_of_its_test_sets(report: ModuleType) -> None:
    plots, statistics = importlib.import_module("_arena_plots"), importlib.import_module("_arena_results")
    run = result(report, "x", [0.2, 0.4, 0.9], dataset="A->B+C", task_sets=("B", "B", "C"))
    curves = plots.accuracy_curves(statistics.rounds([run]))
    assert {name: of["x"][0][1] for name, (_, of) in curves.items()} == {
        "A->B+C--B": pytest.approx(30),
        "A->B+C--C": pytest.approx(90),
    }


def test_differences_are_paired(statistics: ModuleType) -> None:
    hard = np.linspace(0, 0.9, 20)
    gains = {"A": 0.05, "B": -0.05, "C": 0.0}
    wiggle = 0.01 * (-1.0) ** np.arange(20)
    results = []
    for dataset, gain in gains.items():
        results.append(result(statistics, "x", list(hard + gain + wiggle), dataset=dataset))
        results.append(result(statistics, "y", list(hard), dataset=dataset))
    results += [result(statistics, name, [value], dataset="D") for name, value in (("x", 0.9), ("y", 0.1))]
    (of,) = statistics.rounds(results)
    found = statistics.compare(of, "x", "y")
    assert (found.better, found.same, found.worse) == (("A",), ("C", "D"), ("B",))
    assert found.gain == pytest.approx(80 / 61)
    by_set = np.array([5.0, -5.0, 0.0, 80.0])
    assert (found.set_gain, found.sets, found.seeds) == (pytest.approx(20), 4, 1)
    assert found.set_ci95 == pytest.approx(3.182446 * by_set.std(ddof=1) / 2)
    mirrored = statistics.compare(of, "y", "x")
    assert (mirrored.better, mirrored.worse, mirrored.gain) == (("B",), ("A",), pytest.approx(-found.gain))
    assert statistics.compare(of, "x", "nobody") is None


def test_bundles_that_met_other_tasks_are_refused(statistics: ModuleType) -> None:
    with pytest.raises(ValueError, match="different tasks"):
        statistics.rounds([result(statistics, "x", [0.5]), result(statistics, "y", [0.5], drawn="others")])
    with pytest.raises(ValueError, match="different tasks"):
        statistics.rounds(
            [result(statistics, "x", [0.5]), result(statistics, "y", [0.5, 0.5], budget_s=180.0)]
        )


def test_rows_name_the_best_other_bundle_and_the_controller(report: ModuleType) -> None:
    results = [
        result(report, "autometa", [0.8, 0.6], first_learner_s=4.0),
        result(report, "autometa", [0.8, 0.6], seed=1, first_learner_s=6.0, overrun=True),
        result(report, "x", [0.5, 0.5], first_learner_s=99.0),
        result(report, "y", [0.3, 0.3], overrun=True),
    ]
    rows = {row["name"]: row for row in report.rows(results)}
    own = rows["arena/60/autometa/A"]
    assert (own["value"], own["reference"], own["ratio"]) == pytest.approx((70, 50, 1.4))
    assert own["wall_s"] == 50
    assert own["worst_seed"] == pytest.approx(70)
    assert rows["arena/60/x/A"]["reference"] == pytest.approx(70)
    assert rows["arena/60/y/rank"]["value"] == 3
    assert rows["controller/first_learner_s"]["value"] == 6
    assert rows["controller/overruns"]["value"] == 1
    table = report.markdown(results, "autometa")
    assert "| `autometa` | 1.00 | 70.0 ±" in table
    assert "| `x` | +20.0 ±" in table


def test_gains_over_rivals_have_an_interval_over_tasks_and_one_over_datasets(report: ModuleType) -> None:
    gains = {("A", 0): [0.1, 0.3], ("A", 1): [0.2, 0.2], ("B", 0): [0.5, 0.3]}
    results = []
    for (dataset, seed), values in gains.items():
        where = {"dataset": dataset, "seed": seed}
        results.append(result(report, "autometa", [0.2 + value for value in values], **where))
        results.append(result(report, "strong", [0.2] * len(values), **where))
    results.append(result(report, "fixed", [0.1, 0.1]))
    results.append(result(report, "prototypical", [0.1, 0.1]))
    rows = {row["name"]: row for row in report.rows(results)}
    own = rows["arena/60/autometa/gain_over_strong"]
    assert (own["value"], own["value_sets"]) == pytest.approx((80 / 3, 30))
    assert (own["sets"], own["seeds"]) == (2, 2)
    assert own["ci95_sets"] == pytest.approx(12.7062 * 10, rel=1e-4)
    alone = rows["arena/60/autometa/gain_over_fixed"]
    assert (alone["value"], alone["sets"]) == (pytest.approx(30), 1)
    assert "ci95" in alone and "ci95_sets" not in alone
    assert {name for name in rows if "gain_over" in name} == {own["name"], alone["name"]}
    table = report.markdown(results, "autometa")
    assert "| `strong` | +26.7 ± 14.3 | 7.1 | +30.0 ± 127.1 | 1 | 1 | 0 |" in table
    assert "| `fixed` | +30.0 ± 127.1 |  |  | 0 | 1 | 0 |" in table


def test_tasks_of_a_run_across_domains_belong_to_the_datasets_that_it_was_tested_on(
    statistics: ModuleType,
) -> None:
    where = {"dataset": "A->B+C", "task_sets": ("B", "B", "B", "C")}
    ours = result(statistics, "x", [0.5, 0.5, 0.5, 0.9], **where)
    (of,) = statistics.rounds([ours, result(statistics, "y", [0.4, 0.4, 0.4, 0.6], **where)])
    found = statistics.compare(of, "x", "y")
    assert (found.gain, found.set_gain, found.sets) == (pytest.approx(15), pytest.approx(20), 2)


def test_coverage_counts_the_runs_whose_interval_holds_the_test(report: ModuleType) -> None:
    said = [report.Result.of({**vars(result(report, "autometa", [0.5])), "reported": of}) for of in (
        {"accuracy": 0.6, "low": 0.5, "high": 0.7}, {"accuracy": 0.6, "low": 0.55, "high": 0.65}, None,
    )]  # fmt: skip
    assert [one.covered for one in said] == [True, False, None]
    runs = [replace(one, seed=seed) for seed, one in enumerate(said)]
    failed = replace(runs[0], seed=3, accuracies=(), exit_status=1, settings="--tasks-per-dataset 1")
    (row,) = [row for row in report.rows([*runs, failed]) if row["name"] == "arena/coverage"]
    assert (row["value"], row["unit"], row["runs"]) == (0.5, "share", 2)
