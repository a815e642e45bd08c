"""Work that the runs of a grid of budgets share: where it lies, and what a run was charged for it.

The programs of a run tell its processes through the environment. A process that stands by for meta-test hears in the
file of the charge what meta-training was charged before it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autometa.core import clock
from autometa.core.budget import MemoryBudget, TimeBudget, own_bytes
from autometa.core.journals import write_whole

FOLDER_VARIABLE = "METADL_SHARED_DIR"
CHARGE_FILE, BEFORE_FILE, PEAK_FILE = "charged_s", "charged_before_s", "shared_peak_bytes"
"""In the folder of the learner: what the processes of a run were charged together, what of it before meta-test, and
the memory of what they took over."""

LEAST_LIMIT_S = 5.0
"""Of a limit that shrinks with what was charged."""


@dataclass(frozen=True)
class SharedWork:
    """`folder` holds what runs have left for each other; `speed_label` names what seconds depend on besides the work:
    the device and the number of threads."""

    folder: Path
    speed_label: str

    def note_peak(self, memory: MemoryBudget, more_bytes: int) -> None:
        """Work that was taken over would have taken `more_bytes` on top of what this process, whose budget this is,
        and the one that stands by hold now."""
        folder, declared = os.environ.get("METADL_MODEL_DIR"), os.environ.get("METADL_MEMORY_BYTES")
        if folder and declared:
            beside = int(declared) - memory.total_bytes
            file = Path(folder) / PEAK_FILE
            peak = max(read_peak(Path(folder)) or 0, beside + own_bytes() + more_bytes)
            write_whole(file, str(peak))


def take_part(device: str, environment: Mapping[str, str] = os.environ) -> SharedWork | None:
    """What this process shares with other runs, and from now on is charged for; None where it shares nothing, as
    usual."""
    folder, own = environment.get(FOLDER_VARIABLE), environment.get("METADL_MODEL_DIR")
    if not folder or not own:
        return None
    import torch  # noqa: PLC0415 - slow to import, and not needed without sharing

    keep_charge(Path(own))
    return SharedWork(Path(folder), f"{device}-{torch.get_num_threads()}")


def as_charged(limit_s: float, run: TimeBudget) -> float:
    """What a limit that was set as a share of the time really left would be without what was charged; but never so
    little that nothing can be done, where there is time for it."""
    left_s, charged_s = max(run.left_s(), 0.0), clock.CHARGE.seconds
    if not charged_s or math.isinf(limit_s) or math.isinf(left_s):
        return limit_s
    scaled_s = limit_s * left_s / (left_s + charged_s)
    return max(scaled_s, min(limit_s, LEAST_LIMIT_S, left_s / 2))


def keep_charge(folder: Path) -> None:
    """Take over what earlier processes of this run were charged, and keep the sum in `folder` from now on."""
    file, before = folder / CHARGE_FILE, folder / BEFORE_FILE
    if file.exists() and not before.exists():  # this is the first process after that of meta-training
        _write(before, read_charge(folder))
    clock.CHARGE.on_change = None
    clock.CHARGE.add(read_charge(folder) - clock.CHARGE.seconds)
    clock.CHARGE.on_change = lambda seconds: _write(file, seconds)
    _write(file, clock.CHARGE.seconds)


def read_charge(folder: Path) -> float:
    """Seconds that the processes of a run were charged; 0 where nothing was shared."""
    return _read(folder / CHARGE_FILE)


def read_charge_before_test(folder: Path) -> float:
    """The part of them that was charged in meta-training."""
    return _read(folder / BEFORE_FILE) if (folder / BEFORE_FILE).exists() else read_charge(folder)


def _read(file: Path) -> float:
    """0 where there is no number, such as in a file that a full disk has left empty."""
    try:
        number = float(file.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def read_peak(folder: Path) -> int | None:
    """Bytes that a run would have held at most in work that it took over; None where it took over none."""
    return int(_read(folder / PEAK_FILE)) or None


def _write(file: Path, seconds: float) -> None:
    """At once and whole: the number always has the same length."""
    text = f"{seconds:020.6f}"
    if not file.exists():
        write_whole(file, text)
        return
    with file.open("r+b") as stream:
        stream.write(text.encode("ascii"))
