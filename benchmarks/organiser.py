"""The scale of a challenge: many submissions judged at once, some of which crash, hang, fill memory or are killed.

    python benchmarks/organiser.py [--submissions 100] [--seeds 3] [--tasks 600] [--json FILE]
    python benchmarks/organiser.py --quick

The judge is that of `autometa judge`, as a program of its own that is sampled from outside. Its runs are programs,
too, but stand-ins (`_organiser_run.py`): they play the tasks with a small head on random features and leave the files
of a run, so that 300 of them are feasible here; ingestion, sandbox and scoring are not in them. One in a hundred runs
fails in each of seven ways. The judging is done twice: undisturbed, and killed in the middle (SIGKILL, twice) and
resumed. Then a few real runs (`--real`) of small bundles that fail in the same ways are judged, with all of
`autometa run`.

lost: units that have no row at the end, or one that does not tell what happened. memory_growth: of the judge, per 100
runs. Exit status 1 if anything is lost or grows, or if the two ledgers differ. Linux only.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from _flatness import Sampler, growth_row
from _learner_report import Report, Row, row
from _organiser_plan import Plan, count_differing
from _organiser_real import judge_real
from _organiser_run import KINDS

from autometa.core.settings import validate_settings
from autometa.judging import runs as runs_module
from autometa.judging.executor import in_threads
from autometa.judging.folder import LEDGER_FILE, claim_judging, identity_of, ledger_of
from autometa.judging.judge import judge, list_units, missing_units
from autometa.judging.options import JudgeOptions
from autometa.judging.runs import RunPlayer
from autometa.judging.submissions import find_submissions

STAND_IN = Path(__file__).with_name("_organiser_run.py")
HANG_S = 5.0
"""Seconds after which a stand-in is ended from outside: it takes a fraction of one."""
KILLS = 2
KEPT = {
    "judge/mb": ("memory_growth", 8.0),
    "judge/descriptors": ("descriptors", 2.0),
    "judge/threads": ("threads", 2.0),
}
"""What is sampled of the judge: its name, and what may be gained over all runs and still counts as flat."""
UNITS = {"memory_growth": "MB per 100 runs", "descriptors": "per 100 runs", "threads": "per 100 runs"}
USUAL = {"submissions": (100, 12), "seeds": (3, 2), "tasks": (600, 50), "real": (len(KINDS), 1)}
"""Of options: the value by default, and the one if quick."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("--submissions", type=int, help="100 by default, 12 if quick")
    add("--seeds", type=int, help="3 by default, 2 if quick")
    add("--tasks", type=int, help="of each run; 600 by default, 50 if quick")
    add("--jobs", type=int, default=1, help="runs at a time")
    add(
        "--real", type=int, help="real runs: a good bundle, and as many that fail; all by default, 1 if quick"
    )
    add("--json", type=Path, help="write the rows to this file")
    add("--quick", action="store_true", help="24 runs, and two real ones")
    add("--judge", nargs=3, help=argparse.SUPPRESS)  # the judge itself: submissions, output, options
    options = parser.parse_args(given)
    for name, values in USUAL.items():
        if getattr(options, name) is None:
            setattr(options, name, values[options.quick])
    return options


def be_judge(submissions: Path, output: Path, values: dict[str, int]) -> None:
    """The program that is killed and sampled: what `autometa judge --resume` does, with stand-ins."""
    runs_module.PROGRAM = STAND_IN
    runs_module.GRACE_S = HANG_S - 20.0
    given = {"time_budget": 20.0, "resume": True, "output": output, "seed": 0, **values}
    options = validate_settings(JudgeOptions, given, "options")
    with claim_judging(output, resume=True, overwrite=False):
        ledger = ledger_of(output)
        ledger.open(identity_of(submissions, options, 10**9))
        found = find_submissions([str(path) for path in sorted(submissions.iterdir())])
        missing = missing_units(list_units(found, options.all_seeds), ledger, print)
        player = RunPlayer(output, submissions, options, 10**9)
        judge(missing, ledger, in_threads(player.play, options.jobs, player.programs.stop), print)


def start_judge(plan: Plan, output: Path, jobs: int) -> subprocess.Popen[bytes]:
    """The judge as a program."""
    values = {"seeds": len(plan.seeds), "tasks_per_dataset": plan.tasks, "jobs": jobs}
    given = ["--judge", str(plan.folder), str(output), json.dumps(values)]
    output.mkdir(parents=True, exist_ok=True)
    with (output.parent / f"{output.name}.txt").open("ab") as printed:
        command = [sys.executable, str(Path(__file__).resolve()), *given]
        return subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)


def count_rows(output: Path) -> int:
    """Runs that are in the ledger."""
    try:
        return max((output / LEDGER_FILE).read_bytes().count(b"\n") - 1, 0)
    except FileNotFoundError:
        return 0


def judge_undisturbed(plan: Plan, output: Path, jobs: int, every_s: float) -> tuple[Sampler, float]:
    """Judge once; samples of the judge, and how long it took."""
    began, process = time.monotonic(), start_judge(plan, output, jobs)
    own = psutil.Process(process.pid)
    sampler = Sampler(step=lambda: count_rows(output), parts={"judge": lambda: [own]}, every_s=every_s)
    with sampler.running():
        process.wait()
    check_ended(process, output)
    return sampler, time.monotonic() - began


def judge_killed(plan: Plan, output: Path, jobs: int) -> int:
    """Judge, with kills in the middle; how many processes of runs outlived the judge."""
    left_behind = 0
    for number in range(1, KILLS + 1):
        process = start_judge(plan, output, jobs)
        while count_rows(output) < len(plan.keys) * number // (KILLS + 1) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(random.Random(number).uniform(0, 0.3))
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left_behind += len(psutil.wait_procs(children, timeout=5)[1])
    process = start_judge(plan, output, jobs)
    process.wait()
    check_ended(process, output)
    return left_behind


def check_ended(process: subprocess.Popen[bytes], output: Path) -> None:
    """SystemExit where the judge itself has failed."""
    if process.returncode:
        said = (output.parent / f"{output.name}.txt").read_text(errors="replace").strip().splitlines()
        raise SystemExit(f"organiser: the judge ended with status {process.returncode}: {said[-1:]}")


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[Row], list[str]]:
    """All that was measured, and what went wrong."""
    plan = Plan.write(folder / "submissions", options.submissions, options.seeds, options.tasks)
    sampler, seconds = judge_undisturbed(plan, folder / "whole", options.jobs, 0.2 if options.quick else 0.5)
    left_behind = judge_killed(plan, folder / "killed", options.jobs)
    whole, resumed = ledger_of(folder / "whole").rows(), ledger_of(folder / "killed").rows()
    lost = plan.count_lost(whole) + plan.count_lost(resumed)
    differing, units = count_differing(whole, resumed), len(plan.keys)
    runs, lost_real, real_s = judge_real(folder, options.real)
    note = f"of 2 x {units} stand-ins, {len(plan.fails)} of them failing, and {runs} real runs"
    rows = [
        row("organiser/lost", lost + lost_real, "runs", note=note),
        row("organiser/differing", differing, "rows", note=f"of {units}, after {KILLS} kills of the judge"),
        row("organiser/left_behind", left_behind, "processes", note="of runs, after kills of the judge"),
        row("organiser/seconds_per_run", seconds / units, "s", note=f"stand-ins; real runs {real_s:.1f} s"),
    ]
    wrong = [each["name"] for each in rows[:3] if each["value"]]
    for name, verdict in sampler.verdicts(units).items():
        what, slack = KEPT.get(name, ("", 0.0))
        if what:
            rows.append(
                growth_row(f"organiser/{what}", verdict, UNITS[what], per=100, steps=units, slack=slack)
            )
            wrong += [f"organiser/{what}"] if verdict.grows(units, slack) else []
    return rows, wrong


def main() -> None:
    """Measure and report; or be the judge."""
    options = arguments()
    if sys.platform != "linux":
        raise SystemExit("organiser: processes are sampled as Linux shows them")
    if options.judge:
        submissions, output, values = options.judge
        be_judge(Path(submissions), Path(output), json.loads(values))
        return
    with tempfile.TemporaryDirectory(prefix="organiser-") as name:
        rows, wrong = measure(options, Path(name))
    settings = f"{options.submissions} submissions, {options.seeds} seeds, {options.tasks} tasks, {options.jobs} jobs"
    Report(options.json, settings, resume=False).add(rows)
    if wrong:
        raise SystemExit(f"organiser: wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
