"""The arena among the benchmarks: its statistics on made-up results, its runs on a program that only writes files."""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from autometa.submission import read_settings

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PROGRAM = """
import json, sys
from pathlib import Path
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if given["--submission"].endswith("random"):
    sys.exit("it is broken")
out = Path(given["--output"])
for name in ("ingestion", "scoring"):
    (out / name).mkdir(parents=True)
(out / "ingestion" / "truth.json").write_text(given["--seed"])
line = "learner on disk ({}, {} s after the start)\\n"
log = "[autometa    1.5 s] " + line.format("bootstrap", 1.5) + line.format("search", 9.0)
(out / "ingestion" / "submission.log").write_text(log)
record = {"duration_s": 19.0, "stages": [{"name": "prepare", "seconds": 0.5}]}
record["failures"] = {"2": "ran out of time: x"}
(out / "ingestion" / "ingestion.json").write_text(json.dumps(record))
tasks = [{"status": s, "metrics": {"normalized_accuracy": a}} for s, a in (("ok", 0.5), ("missing", 0.0))]
(out / "scoring" / "details.json").write_text(json.dumps({"tasks": tasks}))
"""


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_arena_report")


@pytest.fixture
def start(
    report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """`start(*arguments)`: what the arena prints, where runs only write files."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    arena, runs = (importlib.import_module(name) for name in ("arena", "_arena_runs"))
    monkeypatch.setattr(runs, "PROGRAM", program)
    monkeypatch.setattr(arena, "decode", lambda datasets: None)
    monkeypatch.setattr(arena, "prepare_process", lambda: None)

    def run(*given: object) -> str:
        monkeypatch.setattr(sys, "argv", ["arena.py", "--results", str(tmp_path / "kept"), *map(str, given)])
        arena.main()
        return capsys.readouterr().out

    return run


def result(report: ModuleType, bundle: str, accuracies: list[float], **more: object) -> object:
    fields = {
        "bundle": bundle, "dataset": "A", "budget_s": 60.0, "seed": 0, "settings": "", "exit_status": 0,
        "drawn": "", "wall_s": 50.0, "overrun": False, "unanswered": 0, "first_learner_s": None, "reason": "",
        "machine": "",
    }  # fmt: skip
    return report.Result(accuracies=tuple(accuracies), **fields | more)


def test_ranks_share_ties_and_leave_out_what_not_all_have(report: ModuleType) -> None:
    results = [
        result(report, "x", [0.9, 0.7]),
        result(report, "y", [0.7, 0.9]),
        result(report, "z", [0.1, 0.1]),
        *(result(report, name, [value], dataset="B") for name, value in (("x", 0.1), ("y", 0.2), ("z", 0.3))),
        result(report, "z", [1.0], dataset="C"),
        result(report, "y", [], dataset="C", exit_status=2),
    ]
    (of,) = report.rounds(results)
    assert report.average_ranks(of) == {"x": 2.25, "y": 1.75, "z": 2.0}
    assert len(of.cells) == 3
    only = report.rounds([result(report, "x", [0.5]), result(report, "y", [0.5], dataset="B")])
    assert report.average_ranks(only[0]) == {}


def test_an_estimate_is_over_the_tasks_of_all_seeds(report: ModuleType) -> None:
    runs = [result(report, "x", [0.2, 0.4], seed=1), result(report, "x", [0.6, 0.8], seed=0)]
    found = report.estimate(runs)
    scores = np.array([20.0, 40.0, 60.0, 80.0])
    assert found.mean == pytest.approx(50)
    assert found.worst_seed == pytest.approx(30)
    assert found.ci95 == pytest.approx(3.182446 * scores.std(ddof=1) / 2)


def test_differences_are_paired(report: ModuleType) -> None:
    hard = np.linspace(0, 0.9, 20)
    gains = {"A": 0.05, "B": -0.05, "C": 0.0}
    wiggle = 0.01 * (-1.0) ** np.arange(20)
    results = []
    for dataset, gain in gains.items():
        results.append(result(report, "x", list(hard + gain + wiggle), dataset=dataset))
        results.append(result(report, "y", list(hard), dataset=dataset))
    results += [result(report, name, [value], dataset="D") for name, value in (("x", 0.9), ("y", 0.1))]
    (of,) = report.rounds(results)
    found = report.compare(of, "x", "y")
    assert (found.better, found.same, found.worse) == (("A",), ("C", "D"), ("B",))
    assert found.gain == pytest.approx(80 / 61)
    mirrored = report.compare(of, "y", "x")
    assert (mirrored.better, mirrored.worse, mirrored.gain) == (("B",), ("A",), pytest.approx(-found.gain))
    assert report.compare(of, "x", "nobody") is None


def test_bundles_that_met_other_tasks_are_refused(report: ModuleType) -> None:
    with pytest.raises(ValueError, match="different tasks"):
        report.rounds([result(report, "x", [0.5]), result(report, "y", [0.5], drawn="others")])
    with pytest.raises(ValueError, match="different tasks"):
        report.rounds([result(report, "x", [0.5]), result(report, "y", [0.5, 0.5], budget_s=180.0)])


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


def test_a_second_start_measures_what_is_missing(start: Callable[..., str], tmp_path: Path) -> None:
    written = [tmp_path / name for name in ("table.md", "plots", "rows.json")]
    options = ["--datasets", "ICONS", "--budgets", "20", "--bundles"]
    assert "1 runs, 1 to measure" in start(*options, "autometa")
    second = start(*options, "autometa,random,prototypical", "--jobs", 2, "--markdown", written[0])
    assert "3 runs, 2 to measure" in second
    assert "failed: it is broken" in second
    kept = json.loads((tmp_path / "kept" / "autometa--ICONS--20s--0.json").read_text())
    assert kept["accuracies"] == [0.5, 0.0]
    assert (kept["first_learner_s"], kept["unanswered"], kept["overrun"]) == (2.0, 1, True)
    assert "- Failed: random on ICONS, 20 s, seed 0: it is broken" in written[0].read_text()
    only = start("--report-only", "--bundles", "autometa", "--plots", written[1], "--json", written[2])
    assert "prototypical" not in only
    assert {file.name for file in written[1].iterdir()} == {"accuracy_ICONS.png", "rank.png"}
    names = [row["name"] for row in json.loads(written[2].read_text())]
    assert names == [
        *("arena/20/autometa/ICONS", "arena/20/autometa/rank"),
        *("controller/first_learner_s", "controller/overruns"),
    ]
    assert "3 runs, 1 to measure" in start(*options, "autometa,random,prototypical", "--retry-failed")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--bundles", "nobody"], "--bundles nobody.*autometa"),
        (["--datasets", "NOWHERE"], "NOWHERE.*CLIPART, ICONS, LETTERS"),
        (["--budgets", "soon"], "soon"),
        (["--ways", "1-3"], "ways"),
        (["--report-only"], "no results"),
    ],
)
def test_what_is_unknown_is_named(start: Callable[..., str], arguments: list[str], named: str) -> None:
    with pytest.raises(SystemExit, match=named):
        start(*arguments)


def test_results_measured_otherwise_are_not_mixed(start: Callable[..., str]) -> None:
    options = ["--datasets", "ICONS", "--bundles", "autometa"]
    start(*options)
    with pytest.raises(SystemExit, match="--tasks-per-dataset 30"):
        start(*options, "--tasks", 20)
    with pytest.raises(SystemExit, match="there are: ICONS"):
        start("--report-only", "--datasets", "LETTERS")


def test_runs_that_are_stopped_leave_no_result(
    report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text("import time; time.sleep(60)")
    runs = importlib.import_module("_arena_runs")
    monkeypatch.setattr(runs, "PROGRAM", program)
    monkeypatch.setattr(runs, "END_S", 2.0)  # a signal may be lost while Python starts
    runner = runs.Runner(tmp_path / "kept", "")
    units = [runs.Unit(Path("x"), Path("A"), 20.0, seed) for seed in range(3)]
    threading.Timer(0.3, runner.stop).start()
    began = time.monotonic()
    assert list(runner.run_all(units, 2)) == []
    assert time.monotonic() - began < 20
    assert not list((tmp_path / "kept").iterdir())


def test_the_controller_does_not_profit_from_its_own_row_of_the_priors(
    report: ModuleType, tmp_path: Path
) -> None:
    runs = importlib.import_module("_arena_runs")
    bundles = BENCHMARKS.parent / "baselines"
    unit = runs.Unit(bundles / "autometa", Path("data/ICONS"), 20.0, 0)
    own = runs.without_own_prior(unit, tmp_path)
    assert (own.name, own.file) == (unit.name, unit.file)
    assert read_settings(own.bundle).priors_without == ("ICONS",)
    assert read_settings(unit.bundle).priors_without == ()
    other = runs.Unit(bundles / "random", Path("data/ICONS"), 20.0, 0)
    assert runs.without_own_prior(other, tmp_path) == other
