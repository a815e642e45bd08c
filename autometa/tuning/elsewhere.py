"""What the budgets of a grid are expected to buy on other machines, by the profile of this one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from autometa.core.errors import ConfigError
from autometa.tuning.budget_file import Budget
from autometa.tuning.point import Point
from autometa.tuning.predicted import predict_curve
from autometa.tuning.profiles import Profile, read_profile
from autometa.tuning.runner import limited

LIMIT_S = 300.0


def measure_here(name: str, threads: int, device: str | None) -> Profile:
    """The profile of this machine with so many processors and this device, from a process of its own: see
    `autometa.tuning.measured.measure_profile`. ConfigError where it cannot be measured."""
    with tempfile.TemporaryDirectory(prefix="autometa-profile-") as scratch, limited(threads, device):
        file = Path(scratch) / "profile.yaml"
        program = [sys.executable, "-m", "autometa.tuning.measured", name, str(file)]
        try:
            done = subprocess.run(program, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            raise ConfigError(f"this machine: not measured within {LIMIT_S:.0f} s") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ConfigError(f"this machine: not measured ({last[:200]})")
        return read_profile(str(file))


def most_threads(points: Sequence[Point]) -> int | None:
    """Of the points with a score; None where there are none."""
    return max((point.threads for point in points if point.has_score), default=None)


def predict_elsewhere(budget: Budget, profiles: Sequence[Profile], here: Profile) -> Budget:
    """The same with a predicted curve for each profile, from the points of the first submission with the most
    threads. `here`: the profile of this machine with as many."""
    threads, first = most_threads(budget.points), budget.points[0].submission if budget.points else ""
    used = [point for point in budget.points if (point.threads, point.submission) == (threads, first)]
    found = [predict_curve(used, profile, here) for profile in profiles]
    return budget.model_copy(update={"predicted": tuple(found)})
