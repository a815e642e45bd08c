"""Signals beside Ctrl-C: little time to live, a limit of processor time, a closed terminal, a reader that is gone."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ingestion_runs import TASKS, Runner
from synthetic import MakeBundle

from autometa.cli.output import LastingConsole
from ingestion import Event
from ingestion.contract import TasksLeft
from ingestion.settings import print_event
from ingestion.terminal import HURRY_S, SIGNALS, first_interrupt, interrupt_program, prepare_process

ROOT = Path(__file__).parents[2]
IMPORTED = """
    import torch
    (Path(os.environ["METADL_MODEL_DIR"]) / f"imported-{os.getpid()}").touch()
"""
SAVES = """
    while len(list(Path(os.environ["METADL_MODEL_DIR"]).glob("imported-*"))) < 2:
        time.sleep(0.02)  # until the process that stands by is ready, however busy the machine is
    MyLearner().save(os.environ["METADL_MODEL_DIR"])
    (Path(os.environ["METADL_MODEL_DIR"]) / "whole").touch()
    time.sleep(1000)
"""
HANGS_FROM_THE_SECOND_TASK_ON = """
    print("deadline", float(os.environ["METADL_DEADLINE"]) - time.monotonic())
    done = Path(os.environ["METADL_MODEL_DIR"]) / "done"
    if done.exists():
        time.sleep(1000)
    done.touch()
    return self.nearest(query_set)
"""


@pytest.fixture
def prepared() -> Iterator[None]:
    """This process handles signals as a program does that runs submissions."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    limits = resource.getrlimit(resource.RLIMIT_CPU)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number in SIGNALS:
        signal.signal(number, interrupt_program)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    resource.setrlimit(resource.RLIMIT_CPU, limits)


def send_when(number: int, file: Path) -> threading.Thread:
    """Send this process a signal as soon as a file exists."""

    def wait() -> None:
        ends = time.monotonic() + 300
        while not file.exists() and time.monotonic() < ends:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.medium
def test_after_sigterm_a_run_keeps_what_it_has_and_ends_soon(
    runner: Runner, make_bundle: MakeBundle, prepared: None
) -> None:
    whole = runner.output / "model" / "whole"
    thread = send_when(signal.SIGTERM, whole)
    bundle = make_bundle(top=IMPORTED, meta_fit=SAVES, predict=HANGS_FROM_THE_SECOND_TASK_ON)
    result = runner(bundle, time_budget_s=500)  # so short that a process stands by
    ended = time.time()
    thread.join()
    assert ended - whole.stat().st_mtime < 30
    assert result.succeeded and set(result.failures) == set(range(2, TASKS + 1))
    assert runner.accuracy(1) > 0.7 and (runner.output / "truth.json").exists()
    told = [
        float(line.split()[1]) for line in runner.texts("line").splitlines() if line.startswith("deadline")
    ]
    assert told and max(told) <= HURRY_S  # the process that stood by has heard of it, too


def test_what_is_left_of_the_time_is_told_before_each_task() -> None:
    assert "METADL_DEADLINE" not in TasksLeft(3, 60, 5.0).variables()
    assert TasksLeft(3, 60, None, 12.5).variables()["METADL_DEADLINE"] == "12.5"
    assert HURRY_S <= 20  # of the 30 s that most systems wait between SIGTERM and SIGKILL


@pytest.mark.parametrize(
    ("number", "hurries"),
    [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, False), (signal.SIGXCPU, True)],
)
def test_the_first_signal_is_noted_and_whether_there_is_little_time(
    prepared: None, number: int, hurries: bool
) -> None:
    with first_interrupt() as interrupt:
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert interrupt.asked and interrupt.hurries == hurries
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert signal.getsignal(number) is interrupt_program


@pytest.mark.medium
def test_the_limit_of_processor_time_interrupts_once() -> None:
    """In a process of its own, as a limit cannot be taken back."""
    code = """
import resource, time
from ingestion.terminal import first_interrupt, prepare_process
prepare_process()
resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1, int(time.process_time()) + 60))
with first_interrupt() as interrupt:
    while not interrupt.asked: pass
    ends = time.process_time() + 2.2  # the system would have sent two more
    while time.process_time() < ends: pass
print("ended once")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and done.stdout == "ended once\n", done.stderr


def test_a_program_started_with_nohup_outlives_its_terminal(prepared: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
        patch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO()))
        prepare_process()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is interrupt_program


class Gone(io.StringIO):
    """A terminal that was closed, or a pipe that nobody reads."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    flush = write  # type: ignore[assignment]


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO])
def test_a_console_that_nobody_reads_goes_on_in_silence(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    console = LastingConsole(file=Gone(number))
    for _ in range(3):
        console.print("a line")
    assert console.quiet
    monkeypatch.setattr(sys, "stdout", Gone(number))
    print_event(Event("note", "a line"))
    print_event(Event("progress"))


@pytest.mark.medium
def test_a_run_whose_output_is_cut_by_head_is_finished(runner: Runner, make_bundle: MakeBundle) -> None:
    bundle = make_bundle(meta_fit='[print("line", n, flush=True) for n in range(200)]; return MyLearner()')
    command = [sys.executable, "run_local.py", "--verbose", "--dataset", str(runner.dataset.parent)]
    command += ["--submission", str(bundle), "--output", str(runner.output), "--tasks-per-dataset", "2"]
    command += ["--time-budget", "120s", "--sandbox", "none", "--query-per-class", "4", "--image-size", "16"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, start_new_session=True) as run:
        assert run.stdout is not None and run.stderr is not None and run.stdout.readline()
        run.stdout.close()
        errors = run.stderr.read().decode()
        assert run.wait(timeout=200) == 0, errors
    assert not errors
    assert np.loadtxt(runner.output / "ingestion" / "task_2.predict").size
    assert (runner.output / "scoring" / "scores.json").exists()
