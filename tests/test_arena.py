"""The arena among the benchmarks: its runs, on a program that only writes files, and what it reads of them."""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from autometa.judging import programs
from ingestion.sources import read_source

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NEW = ("reported", "task_sets", "counted_s", "sharing")
"""What results of earlier versions lack."""
PROGRAM = """
import json, sys
from pathlib import Path
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if given["--submission"].endswith("random"):
    sys.exit("it is broken")
out = Path(given["--output"])
for name in ("ingestion", "scoring"):
    (out / name).mkdir(parents=True)
(out / "ingestion" / "model").mkdir()
validation = {"normalised_accuracy": 0.4, "interval": [0.3, 0.5]}
(out / "ingestion" / "model" / "learner.json").write_text(json.dumps({"validation": validation}))
(out / "ingestion" / "truth.json").write_text(given["--seed"])
line = "learner on disk ({}, {} s after the start)\\n"
log = "[autometa    1.5 s] " + line.format("bootstrap", 1.5) + line.format("search", 9.0)
(out / "ingestion" / "submission.log").write_text(log)
record = {"duration_s": 19.0, "stages": [{"name": "prepare", "seconds": 0.5}]}
record["failures"] = {"2": "ran out of time: x"}
(out / "ingestion" / "ingestion.json").write_text(json.dumps(record))
splits = Path(given["--dataset"]) / "info" / "meta_splits.txt"
sets = json.loads(splits.read_text())["meta-test"] if splits.exists() else ["ICONS"]
tasks = [
    {"dataset": name, "status": s, "metrics": {"normalized_accuracy": a}}
    for name in sets for s, a in (("ok", 0.5), ("missing", 0.0))
]
(out / "scoring" / "details.json").write_text(json.dumps({"tasks": tasks}))
"""


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("_arena_runs")


@pytest.fixture
def start(
    runs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """`start(*arguments)`: what the arena prints, where runs only write files."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    arena = importlib.import_module("arena")
    monkeypatch.setattr(runs, "PROGRAM", program)
    monkeypatch.setattr(arena, "decode", lambda *_: None)
    monkeypatch.setattr(arena, "prepare_process", lambda: None)

    def run(*given: object) -> str:
        seeds = [] if "--report-only" in given else ["--seeds", "0"]
        argv = ["arena.py", "--results", str(tmp_path / "kept"), *seeds, *map(str, given)]
        monkeypatch.setattr(sys, "argv", argv)
        arena.main()
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"normalised_accuracy": 0.8, "interval": [0.7, 0.85], "ci95": 0.5}, (0.8, 0.7, 0.85)),
        ({"normalised_accuracy": 0.75, "ci95": 0.25}, (0.75, 0.5, 1.0)),
        ({"normalised_accuracy": 0.75}, None),
        ({"stage": "bootstrap"}, None),
        ({"normalised_accuracy": 0.8, "interval": 3}, None),
        ([], None),
    ],
)
def test_what_a_learner_says_of_itself_is_read_from_its_record(
    runs: ModuleType, tmp_path: Path, record: object, expected: tuple[float, ...] | None
) -> None:
    assert runs.reported(tmp_path) is None
    (tmp_path / "learner.json").write_text(json.dumps({"validation": record}))
    found = runs.reported(tmp_path)
    assert (found and astuple(found)) == expected


def test_results_of_an_older_arena_still_load(
    runs: ModuleType, start: Callable[..., str], tmp_path: Path
) -> None:
    start("--datasets", "ICONS", "--bundles", "autometa")
    kept = tmp_path / "kept"
    ((name, new),) = runs.stored(kept).items()
    old = {key: value for key, value in asdict(new).items() if key not in NEW}
    (kept / name).write_text(json.dumps(old))
    unknown = replace(new, reported=None, task_sets=(), counted_s=None, sharing="")
    assert runs.stored(kept) == {name: unknown}
    assert runs.stored(kept)[name].set_of_task == new.task_sets == ("ICONS", "ICONS")


def test_a_run_trains_on_some_datasets_and_is_tested_on_others(
    start: Callable[..., str], tmp_path: Path
) -> None:
    across = ["--train", "LETTERS,ICONS", "--test", "CLIPART"]
    assert "1 runs, 1 to measure" in start(*across, "--bundles", "prototypical")
    assert "1 runs, 0 to measure" in start(*across, "--bundles", "prototypical")
    start("--datasets", "ICONS", "--bundles", "prototypical")
    kept = json.loads((tmp_path / "kept" / "prototypical--LETTERS+ICONS->CLIPART--60s--0.json").read_text())
    assert kept["task_sets"] == ["CLIPART", "CLIPART"]
    root = tmp_path / "kept" / "cross-domain" / "LETTERS+ICONS->CLIPART"
    source = read_source(root)
    assert (source.train_names, source.test_names) == (("LETTERS", "ICONS"), ("CLIPART",))
    assert "ICONS " not in start("--report-only", *across)


@pytest.mark.medium
def test_a_second_start_measures_what_is_missing(start: Callable[..., str], tmp_path: Path) -> None:
    written = [tmp_path / name for name in ("table.md", "plots", "rows.json")]
    options = ["--datasets", "ICONS", "--budgets", "20", "--bundles"]
    assert "1 runs, 1 to measure" in start(*options, "autometa")
    second = start(*options, "autometa,random,prototypical", "--markdown", written[0])
    assert "3 runs, 2 to measure" in second
    assert "failed: it is broken" in second
    kept = json.loads((tmp_path / "kept" / "autometa--ICONS--20s--0.json").read_text())
    assert kept["accuracies"] == [0.5, 0.0]
    assert kept["reported"] == {"accuracy": 0.4, "low": 0.3, "high": 0.5}
    assert (kept["first_learner_s"], kept["unanswered"], kept["overrun"]) == (2.0, 1, True)
    assert kept["counted_s"] == 19.0 and 0 < kept["wall_s"] < 19.0  # the program says that it took longer
    assert kept["sharing"].startswith("1 at a time, OMP_NUM_THREADS ")
    assert "- Failed, counts as chance: random on ICONS, 20 s, seed 0: it is broken" in written[0].read_text()
    only = start("--report-only", "--bundles", "autometa", "--plots", written[1], "--json", written[2])
    assert "prototypical" not in only
    assert {file.name for file in written[1].iterdir()} == {"accuracy_ICONS.png", "rank.png"}
    names = [row["name"] for row in json.loads(written[2].read_text())]
    assert names == [
        *("arena/20/autometa/ICONS", "arena/20/autometa/rank", "arena/coverage"),
        *("controller/first_learner_s", "controller/overruns"),
    ]
    assert "3 runs, 1 to measure" in start(*options, "autometa,random,prototypical", "--retry-failed")


def test_several_seeds_and_the_rivals_without_a_search_are_the_default(
    runs: ModuleType, tmp_path: Path
) -> None:
    arena = importlib.import_module("arena")
    units = arena.units_of(arena.arguments(["--datasets", "ICONS"]), tmp_path)
    assert {unit.seed for unit in units} == {0, 1, 2}
    assert {unit.name for unit in units} >= {"autometa", "all_views", "strong"}


def test_a_run_that_had_to_be_ended_counts_as_not_scored(runs: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "scoring").mkdir()
    task = {"dataset": "A", "status": "ok", "metrics": {"normalized_accuracy": 0.5}}
    (tmp_path / "scoring" / "details.json").write_text(json.dumps({"tasks": [task]}))
    unit = runs.Unit(Path("x"), Path("A"), 20.0, 0)
    in_time = runs.collected(unit, "", tmp_path, programs.Ended(0, 21.5, late=False), "")
    assert (in_time.accuracies, in_time.wall_s, in_time.overrun) == ((0.5,), 21.5, False)
    late = runs.collected(unit, "", tmp_path, programs.Ended(0, 700.0, late=True), "")
    assert (late.accuracies, late.wall_s, late.overrun, late.failed) == ((), 700.0, True, True)
    assert "ended after 700 s" in late.reason


def test_a_dataset_that_has_images_of_another_one_is_no_other_domain(
    start: Callable[..., str], tmp_path: Path
) -> None:
    for name, seed in (("A", 1), ("B", 2), ("COPY_OF_A", 1)):
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "labels.csv").write_text("FILE_NAME,CATEGORY\nx.png,y\n")
        noise = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / name / "images" / "x.png")
    across = ["--data", tmp_path, "--bundles", "prototypical", "--train"]
    with pytest.raises(SystemExit, match=r"A.images.x.png and .*COPY_OF_A.images.x.png are the same image"):
        start(*across, "A,B", "--test", "COPY_OF_A")
    assert "1 runs, 1 to measure" in start(*across, "A", "--test", "B")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--bundles", "nobody"], "--bundles nobody.*autometa"),
        (["--datasets", "NOWHERE"], "NOWHERE.*CLIPART, ICONS, LETTERS"),
        (["--train", "NOWHERE", "--test", "ICONS"], "NOWHERE.*CLIPART, ICONS, LETTERS"),
        (["--train", "ICONS"], "give both"),
        (["--train", "ICONS", "--test", "CLIPART", "--datasets", "LETTERS"], "no --datasets"),
        (["--train", "ICONS,CLIPART", "--test", "CLIPART"], "CLIPART is in both"),
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
    with pytest.raises(SystemExit, match=r"measured with 1 at a time.* not with 2 at a time"):
        start(*options, "--jobs", 2)
    with pytest.raises(SystemExit, match="there are: ICONS"):
        start("--report-only", "--datasets", "LETTERS")


@pytest.mark.medium
def test_runs_that_are_stopped_leave_no_result(
    runs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(runs, "PROGRAM", program)
    monkeypatch.setattr(programs, "STOP_S", 2.0)  # a signal may be lost while Python starts
    runner = runs.Runner(tmp_path / "kept", "")
    units = [runs.Unit(Path("x"), Path("A"), 20.0, seed) for seed in range(3)]
    threading.Timer(0.3, runner.stop).start()
    began = time.monotonic()
    assert list(runner.run_all(units, 2)) == []
    assert time.monotonic() - began < 20
    assert not list((tmp_path / "kept").iterdir())
