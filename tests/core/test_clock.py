"""The clock that charges for shared work, and what the processes of a run know of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from autometa.core import clock
from autometa.core.budget import MemoryBudget, TimeBudget, process_age_s, stopwatch
from autometa.core.sharing import (
    CHARGE_FILE,
    PEAK_FILE,
    SharedWork,
    as_charged,
    keep_charge,
    read_charge,
    read_charge_before_test,
    read_peak,
    take_part,
)


@pytest.fixture(autouse=True)
def own_charge(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(clock, "CHARGE", clock.Charge())
    yield


def test_budgets_stopwatches_and_ages_see_what_is_charged() -> None:
    budget, elapsed, age_s = TimeBudget.of(1000.0), stopwatch(), process_age_s()
    with clock.taking(600.0):
        pass
    assert 599 < elapsed() < 700 and 300 < budget.left_s() < 401 and process_age_s() - age_s >= 599
    assert clock.CHARGE.seconds == pytest.approx(600, abs=60)


def test_work_that_a_run_alone_would_not_do_is_given_back_but_no_more_than_was_charged() -> None:
    with clock.taking(500.0):
        pass
    before = clock.CHARGE.seconds
    clock.CHARGE.add(-100.0)
    assert clock.CHARGE.seconds == before - 100
    clock.CHARGE.add(-before)
    assert clock.CHARGE.seconds == 0.0


def test_the_next_process_goes_on_with_the_charge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_charge(tmp_path) == read_charge_before_test(tmp_path) == 0.0
    keep_charge(tmp_path)
    clock.CHARGE.add(12.5)
    assert read_charge(tmp_path) == 12.5
    for more in (2.0, 3.0):  # the process of meta-test, and one that replaces it
        monkeypatch.setattr(clock, "CHARGE", clock.Charge())
        keep_charge(tmp_path)
        clock.CHARGE.add(more)
    assert read_charge(tmp_path) == clock.CHARGE.seconds == 17.5
    assert read_charge_before_test(tmp_path) == 12.5


def test_a_process_takes_part_only_where_it_is_told_a_folder(tmp_path: Path) -> None:
    assert take_part("cpu", {"METADL_MODEL_DIR": str(tmp_path)}) is None
    both = {"METADL_MODEL_DIR": str(tmp_path), "METADL_SHARED_DIR": str(tmp_path / "shared")}
    shared = take_part("cpu", both)
    assert shared is not None and shared.folder == tmp_path / "shared"
    assert shared.speed_label.startswith("cpu-")
    assert take_part("cpu", {"METADL_SHARED_DIR": str(tmp_path)}) is None


def test_a_limit_shrinks_with_the_time_that_is_charged() -> None:
    assert as_charged(10.0, TimeBudget.of(100.0)) == 10.0
    clock.CHARGE.add(300.0)
    assert as_charged(40.0, TimeBudget.of(100.0)) == pytest.approx(10.0, rel=0.01)
    assert as_charged(40.0, TimeBudget.of(-5.0)) == 0.0


def test_a_limit_never_shrinks_to_nothing_while_there_is_time() -> None:
    clock.CHARGE.add(300.0)
    assert as_charged(10.0, TimeBudget.of(100.0)) == 5.0
    assert as_charged(3.0, TimeBudget.of(100.0)) == 3.0
    assert as_charged(10.0, TimeBudget.of(6.0)) == pytest.approx(3.0, rel=0.01)
    for left_s in (0.0, 100.0, math.inf):
        assert as_charged(math.inf, TimeBudget.of(left_s)) == math.inf
    assert as_charged(10.0, TimeBudget.of(math.inf)) == 10.0


def test_a_file_without_a_number_is_no_charge(tmp_path: Path) -> None:
    for name in (CHARGE_FILE, PEAK_FILE):
        (tmp_path / name).touch()
    assert read_charge(tmp_path) == 0.0 and read_peak(tmp_path) is None
    keep_charge(tmp_path)
    clock.CHARGE.add(2.0)
    assert read_charge(tmp_path) == 2.0


def test_memory_of_work_that_was_taken_over_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METADL_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("METADL_MEMORY_BYTES", str(10**10))
    assert read_peak(tmp_path) is None
    shared = SharedWork(tmp_path, "cpu-2")
    shared.note_peak(MemoryBudget(9 * 10**9), 5 * 10**9)
    first = read_peak(tmp_path)
    assert first is not None and 6 * 10**9 < first < 10**10
    shared.note_peak(MemoryBudget(9 * 10**9), 10**9)
    assert read_peak(tmp_path) == first
