"""What to set: one budget of the grid, why, and how to run it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from autometa.bundles.shipped import list_baselines
from autometa.core.options import RunOptions
from autometa.core.settings import dump_yaml
from autometa.core.units import show_bytes, show_duration, show_value
from autometa.tuning.curve import (
    LITTLE,
    Cell,
    compare,
    is_smaller,
    smallest_for,
    smallest_of,
    target_of,
)
from autometa.tuning.grid import describe
from autometa.tuning.options import TuneOptions, visible_devices
from autometa.tuning.point import Limits

SAME = (
    "backbones", "preset", "weights_dir", "download", "tasks_per_dataset", "query_per_class", "ways", "shots",
    "image_size", "image_shape", "seed", "protocol", "sandbox", "infer_limit", "adapt_limit", "max_model_size",
)  # fmt: skip
"""Options that a run takes over from the grid, where they are not the default."""
RUN = "autometa run"


class Check(BaseModel):
    """The recommended budget, run again alone: what was promised and what came, both of the tasks of one repeat.
    Scores in per cent. `score`: None where the run did not fit, for which `reason` says why. `kept`: the score lies
    within the interval of what was promised, or above it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promised_score: float
    promised_ci95: float | None
    promised_s: float
    score: float | None = None
    seconds: float | None = None
    reason: str = ""

    @property
    def kept(self) -> bool:
        """Whether the promise of the score held."""
        if self.score is None:
            return False
        return self.promised_ci95 is None or self.score >= self.promised_score - self.promised_ci95

    def tell(self) -> list[str]:
        """What came of it, in lines."""
        score = "no score" if self.score is None else f"{self.score:.1f} %"
        lines = [f"run alone: {score}" + ("" if self.seconds is None else f", {self.seconds:.1f} s")]
        if not self.kept:
            promised = f"{self.promised_score:.1f}" + (
                f" ± {half:.1f}" if (half := self.promised_ci95) else ""
            )
            why = f"{score} instead of {promised} %" if self.score is not None else self.reason or score
            lines.append(f"run alone it did not keep this: {why}")
        return lines


class Recommendation(BaseModel):
    """A budget to set. `options`: of `autometa run`, as its `--config` file has them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    submission: str
    limits: Limits
    why: str
    options: dict[str, str | int]
    command: str
    check: Check | None = None

    def yaml(self) -> str:
        """The content of `recommended.yaml`."""
        lines = [f"{name}: {dump_yaml(value)}" for name, value in self.options.items()]
        prefix = self.command.partition(RUN)[0]
        how = [f"# As in the grid: {prefix}{RUN} --config recommended.yaml"] if prefix else []
        return "\n".join([f"# {self.why}", *how, *lines, ""])


@dataclass(frozen=True)
class Choice:
    """A cell and why it is the one."""

    cell: Cell
    why: str


def choose(cells: Sequence[Cell], target: str | None = None) -> Choice | None:
    """The budget to recommend: with a target, the smallest that reaches it, else the smallest that is not clearly
    worse than the best. None where nothing fits."""
    fitting = [cell for cell in cells if cell.fits]
    best = max(fitting, key=lambda cell: cell.score or 0.0, default=None)
    if best is None:
        return None
    if target is not None and (wanted := target_of(target, cells)) is not None:
        cell = smallest_for(cells, wanted)
        if cell is not None:
            return Choice(cell, f"the smallest budget of the grid that reaches {wanted:.1f} % ({target})")
        return Choice(best, f"the best one; no budget of the grid reaches {wanted:.1f} % ({target})")
    cell = smallest_of([cell for cell in fitting if _is_as_good(cell, best)]) or best
    if cell is best:
        return Choice(cell, "the best score of the grid" + _tell_smaller(fitting, best))
    return Choice(cell, f"the smallest budget that is no more than {LITTLE:g} points worse than the best one")


def _tell_smaller(fitting: Sequence[Cell], best: Cell) -> str:
    """Why no budget smaller than the best one is recommended."""
    smaller = [cell for cell in fitting if is_smaller(cell, best)]
    if not smaller:
        return ", and no smaller one fits"
    if all(cell.submission == best.submission and compare(cell, best) is None for cell in smaller):
        return "; smaller budgets had other tasks, so they cannot be compared"
    return f"; smaller budgets lose more than {LITTLE:g} points"


def _is_as_good(cell: Cell, best: Cell) -> bool:
    """Whether a smaller budget loses little: on average, in the same tasks."""
    if cell is best:
        return True
    if cell.submission != best.submission:
        return (best.score or 0.0) - (cell.score or 0.0) <= LITTLE
    gap = compare(cell, best)
    return gap is not None and gap.mean >= -LITTLE


def recommend(
    cells: Sequence[Cell], dataset: Path, options: TuneOptions, threads: int
) -> Recommendation | None:
    """What to set, as options of `autometa run`. `threads`: as many as may be used here. None where nothing fits."""
    choice = choose(cells, options.target_score)
    if choice is None:
        return None
    limits, submission = choice.cell.limits, choice.cell.submission
    if submission not in list_baselines():
        submission = str(Path(submission).resolve())
    found = {"dataset": str(dataset.resolve()), "submission": submission}  # for use from any folder
    own: dict[str, str | int] = {**found, "time-budget": show_duration(limits.time_budget_s)}
    if limits.memory_budget_bytes:
        own["memory-budget"] = show_bytes(limits.memory_budget_bytes)
    if limits.gpu_memory_budget_bytes:
        own["gpu-memory-budget"] = show_bytes(limits.gpu_memory_budget_bytes)
    own |= _same_options(options)
    words = [*RUN.split(), *(word for name, value in own.items() for word in (f"--{name}", str(value)))]
    return Recommendation(
        submission=choice.cell.submission,
        limits=limits,
        why=f"{describe(limits)}: {choice.why}",
        options=own,
        command=_prefix(limits, threads, options.device) + shlex.join(words),
    )


def _same_options(options: TuneOptions) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for name in SAME:
        value = getattr(options, name)
        if value == RunOptions.model_fields[name].default or value is None:
            continue
        text = show_value(TuneOptions.model_fields[name], value)
        found[name.replace("_", "-")] = text if isinstance(text, int) else str(text)
    return found


def _prefix(limits: Limits, threads: int, device: str | None) -> str:
    """What keeps a program to fewer processors (Linux), or to a device."""
    visible = "" if device is None else f"CUDA_VISIBLE_DEVICES={shlex.quote(visible_devices(device))} "
    if limits.threads >= threads or sys.platform != "linux":
        return visible
    cores = sorted(os.sched_getaffinity(0))[: limits.threads]
    return f"{visible}taskset -c {','.join(map(str, cores))} "
