"""Ctrl-C and SIGTERM: the first one ends meta-training only, the second one the run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ingestion_runs import TASKS, Runner
from synthetic import MakeBundle

from ingestion import Event
from ingestion.contract import Limits
from ingestion.meta_train import INTERRUPTED, _interrupted
from ingestion.terminal import first_interrupt

SAVES = """
    MyLearner().save(os.environ["METADL_MODEL_DIR"])
    (Path(os.environ["METADL_MODEL_DIR"]) / "whole").touch()
    time.sleep(1000)
"""
HANGS_IN_THE_SECOND_TASK = """
    done = Path(os.environ["METADL_MODEL_DIR"]) / "done"
    if done.exists():
        (done.parent / "hangs").touch()
        time.sleep(1000)
    done.touch()
    return self.nearest(query_set)
"""


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """After SIGTERM, a busy machine has time for meta-test, too."""
    monkeypatch.setattr("ingestion.meta_train.HURRY_S", 900.0)


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def stop(request: pytest.FixtureRequest) -> Iterator[int]:
    """A signal that ends a run."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield int(request.param)
    signal.signal(request.param, before)


@pytest.fixture
def send_when() -> Iterator[Callable[[int, Path], None]]:
    """`send_when(signal, file)`: send this process a signal as soon as a file exists."""
    over = threading.Event()

    def wait(number: int, file: Path) -> None:
        while not over.wait(0.02):
            if file.exists():
                os.kill(os.getpid(), number)
                return

    threads: list[threading.Thread] = []

    def begin(number: int, file: Path) -> None:
        threads.append(threading.Thread(target=wait, args=(number, file), daemon=True))
        threads[-1].start()

    yield begin
    over.set()
    for thread in threads:
        thread.join()


@pytest.mark.medium
def test_the_first_signal_leaves_the_learner_that_was_saved_to_answer(
    runner: Runner, make_bundle: MakeBundle, stop: int, send_when: Callable[[int, Path], None]
) -> None:
    send_when(stop, runner.output / "model" / "whole")
    result = runner(make_bundle(meta_fit=SAVES), time_budget_s=900)
    assert result.succeeded and not result.failures
    assert "answers the tasks; interrupt again to stop the run" in runner.texts("note")
    assert all(runner.accuracy(task) > 0.7 for task in range(1, TASKS + 1))
    assert signal.getsignal(stop) is signal.default_int_handler


@pytest.mark.medium
def test_the_second_signal_ends_the_run_and_keeps_what_is_done(
    runner: Runner, make_bundle: MakeBundle, stop: int, send_when: Callable[[int, Path], None]
) -> None:
    send_when(stop, runner.output / "model" / "whole")
    send_when(stop, runner.output / "model" / "hangs")
    began = time.monotonic()
    result = runner(make_bundle(meta_fit=SAVES, predict=HANGS_IN_THE_SECOND_TASK))
    assert time.monotonic() - began < 300
    assert result.interrupted and not result.succeeded
    assert result.failures == dict.fromkeys(range(2, TASKS + 1), "interrupted")
    assert runner.accuracy(1) > 0.7


@pytest.mark.medium
def test_a_signal_before_anything_was_saved_ends_the_run(
    runner: Runner, make_bundle: MakeBundle, stop: int, send_when: Callable[[int, Path], None], tmp_path: Path
) -> None:
    started = tmp_path / "started"
    send_when(stop, started)
    result = runner(make_bundle(meta_fit=f"Path({str(started)!r}).touch(); time.sleep(1000)"))
    assert result.interrupted and len(result.failures) == TASKS


@pytest.mark.parametrize(("left_s", "goes_on"), [(None, True), (60.0, True), (-1.0, False)])
def test_a_learner_that_there_is_no_time_to_use_does_not_go_on(
    tmp_path: Path, left_s: float | None, goes_on: bool
) -> None:
    (tmp_path / "saved.txt").touch()
    deadline = None if left_s is None else time.monotonic() + left_s
    events: list[Event] = []
    limits = Limits(left_s, deadline, deadline, None, None)
    if goes_on:
        assert _interrupted(tmp_path, limits, events.append) == "interrupted"
        assert [event.text for event in events] == [INTERRUPTED]
    else:
        with pytest.raises(KeyboardInterrupt):
            _interrupted(tmp_path, limits, events.append)


def test_two_signals_at_once_are_an_interrupt(stop: int) -> None:
    with pytest.raises(KeyboardInterrupt), first_interrupt() as interrupt:
        os.kill(os.getpid(), stop)
        time.sleep(0.01)
        assert interrupt.asked
        os.kill(os.getpid(), stop)
        time.sleep(1)
    assert signal.getsignal(stop) is signal.default_int_handler


def test_signals_that_are_ignored_stay_so_and_threads_leave_them_alone() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with first_interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            assert not interrupt.asked
            seen: list[object] = []

            def look() -> None:
                with first_interrupt():
                    seen.append(signal.getsignal(signal.SIGTERM))

            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            assert seen == [signal.SIG_IGN]
    finally:
        signal.signal(signal.SIGTERM, before)
