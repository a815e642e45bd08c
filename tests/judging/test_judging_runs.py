"""Runs of a judging as programs: their commands, their ends, and what is read of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made_up_runs import units

from autometa.cli.main import cli
from autometa.core.errors import ConfigError
from autometa.core.fingerprints import digest, fingerprint
from autometa.core.options import RunOptions
from autometa.core.settings import validate_settings
from autometa.judging import programs
from autometa.judging import runs as runs_module
from autometa.judging.options import JudgeOptions, run_flags
from autometa.judging.outcome import read_outcome
from autometa.judging.programs import Programs
from autometa.judging.runs import RunPlayer
from autometa.judging.submissions import find_submissions
from autometa.judging.travel import pack, unpack

UNIT = units("good", seeds=(7,))[0]
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
given = dict(zip(sys.argv[3::2], sys.argv[4::2]))
<DO>
out = Path(given["--output"])
(out / "ingestion" / "model").mkdir(parents=True)
(out / "scoring").mkdir()
(out / "ingestion" / "truth.json").write_text(given["--seed"])
record = {"duration_s": 19.0, "failures": {"2": "why\\nnot"}, "machine": {"cores": 2}}
(out / "ingestion" / "ingestion.json").write_text(json.dumps(record))
answers = (("ok", 0.5), ("missing", 0.0))
tasks = [{"dataset": "A", "status": s, "metrics": {"normalized_accuracy": a}} for s, a in answers]
(out / "scoring" / "details.json").write_text(json.dumps({"tasks": tasks}))
"""


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`player(do)`: does runs of a program that does this and then leaves the files of a run."""

    def make(do: str = "", **options: Any) -> RunPlayer:
        program = tmp_path / "program.py"
        program.write_text(PROGRAM.replace("<DO>", do))
        monkeypatch.setattr(runs_module, "PROGRAM", program)
        monkeypatch.setattr(programs, "END_S", 2.0)
        monkeypatch.setattr(programs, "STOP_S", 2.0)
        return RunPlayer(tmp_path, Path("photos"), JudgeOptions(**options), 10**9)

    return make


def test_a_run_becomes_a_row_and_its_learner_goes(player: Any, tmp_path: Path) -> None:
    row = player().play(UNIT)
    assert (row.status, row.accuracies, row.unanswered, row.reason) == ("ok", (0.5, 0.0), 1, "why not")
    assert row.drawn and row.machine == "2 cores, GPU ?" and 0 < row.wall_s < 60
    kept = tmp_path / "runs" / "good" / "7"
    assert (kept / "scoring").is_dir() and not (kept / "ingestion" / "model").exists()
    assert player(keep_learners=True).play(UNIT).key == row.key
    assert (kept / "ingestion" / "model").is_dir()


@pytest.mark.parametrize(
    ("do", "exit_status", "reason"),
    [
        ("print('a line'); sys.exit('Error: --dataset: it is broken')", 1, "Error: --dataset: it is broken"),
        ("sys.exit(2)", 2, "the run ended with status 2 and said nothing"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, "the run was killed by SIGKILL"),
        ("raise ValueError('in the program')", 1, "ValueError: in the program"),
    ],
)
def test_a_run_that_fails_is_a_row_with_its_reason(
    player: Any, do: str, exit_status: int, reason: str
) -> None:
    row = player(do).play(UNIT)
    assert (row.status, row.exit_status, row.reason) == ("failed", exit_status, reason)
    assert row.accuracies == () and row.digest == UNIT.submission.digest


@pytest.mark.medium
def test_a_run_that_hangs_is_ended_from_outside(player: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "GRACE_S", -19.0)
    row = player("time.sleep(60)", time_budget=20.0).play(UNIT)
    assert row.status == "failed" and "was ended after" in row.reason and row.wall_s < 30


def test_what_a_killed_run_has_in_its_temporary_folder_is_deleted(player: Any, tmp_path: Path) -> None:
    told = tmp_path / "told"
    do = f"""
scratch = Path(os.environ["TMPDIR"]) / "scratch" / "deep"
scratch.mkdir(parents=True)
(scratch / "large").write_bytes(bytes(1000))
Path({str(told)!r}).write_text(str(scratch))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert player(do).play(UNIT).status == "failed"
    assert not Path(told.read_text()).parents[1].exists()


@pytest.mark.medium
def test_a_run_that_is_stopped_is_no_row(player: Any) -> None:
    made = player("time.sleep(60)")
    threading.Timer(0.3, made.programs.stop).start()
    assert made.play(UNIT) is None and made.play(UNIT) is None


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python ignores interrupts where a shell has started it in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_program_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "STOP_S", 2.0)
    own = tmp_path / "pid"
    code = f"import os, time; open({str(own)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    waited, is_waited_for = programs._has_ended, threading.Event()

    def has_ended(process: Any, seconds: float) -> bool:
        is_waited_for.set()
        return waited(process, seconds)

    def interrupt() -> None:
        is_waited_for.wait()
        while not own.exists() or not own.read_text():
            own.parent.stat()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(programs, "_has_ended", has_ended)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        Programs().run([sys.executable, "-c", code], tmp_path / "printed", 60)
    with pytest.raises(ProcessLookupError):
        os.kill(int(own.read_text()), 0)


def test_an_interrupted_run_is_not_scored(tmp_path: Path) -> None:
    for name, content in (
        ("ingestion/ingestion.json", {"notes": ["interrupted: 3 tasks are missing"]}),
        (
            "scoring/details.json",
            {"tasks": [{"dataset": "A", "status": "ok", "metrics": {"normalized_accuracy": 1}}]},
        ),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(content))
    found = read_outcome(tmp_path, 130, "")
    assert found.failed and found.accuracies == () and found.reason == "the run was interrupted"


def test_runs_get_every_option_that_was_given(tmp_path: Path) -> None:
    given = {
        "time_budget": "10m",
        "ways": "5",
        "shots": "1-5",
        "sandbox": "none",
        "weights_dir": str(tmp_path),
    }
    options = validate_settings(JudgeOptions, {**given, "seeds": 2, "jobs": 2}, "options")
    flags = run_flags(options)
    assert dict(zip(flags[::2], flags[1::2], strict=True)) == {
        "--time-budget": "10m", "--ways": "5", "--shots": "1-5", "--sandbox": "none", "--weights-dir": str(tmp_path),
    }  # fmt: skip
    command = RunPlayer(tmp_path, Path("photos"), options, 10**9).command(UNIT, tmp_path / "run")
    taken = dict(zip(command[4::2], command[5::2], strict=True))
    named = {name.removeprefix("--").replace("-", "_"): value for name, value in taken.items()}
    run = validate_settings(RunOptions, named, "options")
    assert (run.seed, run.memory_budget, run.ways, run.time_budget) == (7, 10**9, (5, 5), 600.0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"submission": "autometa"}, "name the submissions as arguments"),
        ({"retry_failed": True}, "add resume"),
        ({"seeds": 0}, "greater than or equal to 1"),
        ({"resume": True, "overwrite": True, "output": "x"}, "give only one of them"),
    ],
)
def test_options_that_make_no_sense_are_named(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        validate_settings(JudgeOptions, given, "options")


def test_submissions_are_told_apart_by_name_and_content(tmp_path: Path) -> None:
    for name in ("one/mine", "two/mine"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.py").write_text("pass")
    first, second = tmp_path / "one" / "mine", tmp_path / "two" / "mine"
    assert digest(first) == digest(second)
    (second / "model.py").write_text("pass  # changed")
    assert digest(first) != digest(second)
    with pytest.raises(ConfigError, match=r"another one called mine.*rename one"):
        find_submissions([str(first), str(second)])
    with pytest.raises(ConfigError, match="SUBMISSIONS nobody: no such file"):
        find_submissions(["random", "nobody"])


def test_a_run_whose_judge_has_ended_does_not_start(tmp_path: Path) -> None:
    made = RunPlayer(tmp_path, Path("photos"), JudgeOptions(), 10**9).command(UNIT, tmp_path / "run")
    nobody = str(os.getpid() + 1)
    done = subprocess.run(
        [*made[:2], nobody, *made[3:]], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (1, "the judge has ended")
    assert not (tmp_path / "run").exists()


@pytest.mark.medium
def test_a_judge_that_waits_for_runs_holds_no_heavy_library() -> None:
    modules = ", ".join(f"autometa.judging.{name}" for name in ("folder", "images", "judge", "runs"))
    heavy = "[name for name in ('torch', 'scipy', 'jinja2') if name in sys.modules]"
    code = f"import sys, autometa.cli.judge, {modules}; print({heavy})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_old_files_travel_and_hidden_ones_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("pass")
    os.utime(tmp_path / "model.py", (0, 0))  # as in archives that are the same each time
    unpack(pack(tmp_path), tmp_path / "there")
    assert (tmp_path / "there" / "model.py").read_text() == "pass"
    before = fingerprint(tmp_path)
    (tmp_path / ".DS_Store").write_text("x")
    assert fingerprint(tmp_path) == before
    (tmp_path / "model.py").rename(tmp_path / "other.py")
    assert fingerprint(tmp_path) != before


@pytest.mark.medium
def test_an_earlier_judging_stays_until_the_new_dataset_is_found_sound(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "judged"
    (out / "runs").mkdir(parents=True)
    for name in (".autometa-judging", "runs.jsonl", "judging.json"):
        (out / name).write_text("{}")
    before = sorted(out.iterdir())
    asked = ["judge", "random", "--dataset", str(tmp_path / "empty"), "-o", str(out), "--overwrite"]
    shown = CliRunner().invoke(cli, asked)
    assert shown.exit_code == 2 and "empty: holds neither" in shown.stderr, shown.stderr
    assert sorted(out.iterdir()) == before
