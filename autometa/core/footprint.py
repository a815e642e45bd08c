"""What the libraries of a run take of the memory before it has done anything: measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from autometa.core.errors import BrokenEnvironment, ConfigError
from autometa.core.units import show_bytes

LEAST_WORK_BYTES = 45 * 10**6
"""What the smallest network takes with a task of the usual form, measured, and a little more."""
ROUND_BYTES = 10**7
LIMIT_S = 120.0
_CODE = """
import json
from autometa.core.budget import own_bytes
import torch
of_torch = own_bytes()
import autometa.submission
print(json.dumps({"of_torch": of_torch, "of_all": own_bytes()}))
"""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a process that has imported PyTorch, and of one that has imported all that a run begins with, which
    count for a memory budget: without pages of files."""

    of_torch: int
    of_all: int

    @property
    def least_bytes(self) -> int:
        """The smallest memory budget that a run gets by with here, in round figures."""
        return -(-(self.of_all + LEAST_WORK_BYTES) // ROUND_BYTES) * ROUND_BYTES

    def describe(self) -> str:
        """For people."""
        return f"PyTorch alone takes {_mb(self.of_torch)} here, all libraries {_mb(self.of_all)}"

    def check(self, budget_bytes: int) -> None:
        """ConfigError, one line with the fix, if a memory budget is smaller than what a run gets by with."""
        if budget_bytes < self.least_bytes:
            raise ConfigError(
                f"--memory-budget {show_bytes(budget_bytes)}: {self.describe()}; "
                f"give {show_bytes(self.least_bytes)} or more"
            )


def measure_footprint() -> Footprint:
    """The footprint of this installation; takes seconds. BrokenEnvironment where nothing can be imported, or not in
    `LIMIT_S`."""
    command = [sys.executable, "-c", _CODE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BrokenEnvironment(
            f"importing the libraries takes longer than {LIMIT_S:.0f} s; end other programs, or run: autometa doctor"
        ) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise BrokenEnvironment(f"the libraries cannot be imported ({reason}); run: autometa doctor")
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def refuse_too_small(
    budget_bytes: int, report: Callable[[str], None], measure: Callable[[], Footprint] = measure_footprint
) -> None:
    """ConfigError where a memory budget is below what a run gets by with here, else a line on what libraries take."""
    footprint = measure()
    footprint.check(budget_bytes)
    report(f"{footprint.describe()}; the memory budget is {_mb(budget_bytes)}")


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
