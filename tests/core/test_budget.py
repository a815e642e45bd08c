"""Budgets on a fake clock, and memory recovery."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
import torch
from synthetic import FakeClock

from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.chunks import in_chunks
from autometa.core.errors import BudgetExhausted


def test_time_budget_counts_down_and_shares() -> None:
    clock = FakeClock()
    budget = TimeBudget.of(10, clock)
    part = budget.share(0.5, reserve_s=4)
    assert part.left_s() == 3
    clock.now += 3
    assert budget.fits(7)
    assert not budget.fits(7.1)
    with pytest.raises(BudgetExhausted, match="embedding"):
        clock.now += 1
        part.check("embedding")
    assert budget.share(1.0, reserve_s=100).left_s() == 0


def test_memory_budget_is_positive_here() -> None:
    budget = MemoryBudget.of_machine()
    assert 0 < budget.left_bytes() <= budget.total_bytes


@pytest.mark.medium
@pytest.mark.parametrize(
    "error", [MemoryError("x"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_running_out_of_memory_halves_and_goes_on(error: Exception) -> None:
    steps: list[tuple[int, int]] = []

    def work(start: int, stop: int) -> int:
        if stop - start > 3:
            raise error
        steps.append((start, stop))
        return stop - start

    assert sum(in_chunks(work, 10, 8)) == 10
    assert steps == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]


@pytest.mark.medium
def test_a_single_item_that_does_not_fit_is_an_error() -> None:
    def work(start: int, stop: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(BudgetExhausted, match="single item"):
        in_chunks(work, 4, 4)


def test_other_errors_pass_through() -> None:
    def work(start: int, stop: int) -> None:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        in_chunks(work, 4, 4)


@pytest.mark.medium
@pytest.mark.parametrize(
    "age", ["autometa.core.budget import process_age_s", "ingestion.program_age import seconds_since_start"]
)
def test_what_a_shell_did_before_it_gave_way_is_not_the_program_s_age(age: str) -> None:
    name = age.rsplit(" ", 1)[-1]
    script = (
        f"import time; began = time.monotonic(); from {age}; print({name}() - (time.monotonic() - began))"
    )
    shell = f"sleep 4 && exec {shlex.quote(sys.executable)} -c {shlex.quote(script)}"
    alone = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    after = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    assert 0 <= float(alone.stdout) < 4
    assert float(after.stdout) < 3
