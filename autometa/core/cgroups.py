"""Limits of the control groups (cgroups) that this process is in, of versions 1 and 2, and the processors to use.

A container, a systemd slice or a batch system limits a group of processes, and groups lie in groups: the least limit
of the own group and of all around it counts. `autometa/core` and `ingestion`, which do not import each other, have
equal copies of this file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")
UNLIMITED_BYTES = 2**62
"""Version 1 has a number about twice as large where there is no limit."""


def count_cores(root: Path = SYSTEM) -> int:
    """Processors that this process may use: of those that it may run on, as many as the quota of its groups is worth,
    rounded up. `root` is where `proc` and `sys` are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return cores if quota is None else max(min(cores, math.ceil(quota)), 1)


def cpu_quota(root: Path = SYSTEM) -> float | None:
    """Seconds of processor time that the groups of this process have in a second; None without a limit."""
    quotas = []
    for folder in _list_folders("cpu", root):
        quota, _, period = _read(folder / "cpu.max").partition(" ")  # version 2
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):  # `max` and -1 mean no limit
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit(root: Path = SYSTEM) -> int | None:
    """Bytes of memory that the groups of this process may use; None without a limit."""
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")  # the last is of version 1
    texts = [_read(folder / name) for folder in _list_folders("memory", root) for name in names]
    return min((int(text) for text in texts if text.isdigit() and int(text) < UNLIMITED_BYTES), default=None)


def _list_folders(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the own group and of all groups around it, as far as they are mounted here."""
    own = _own_groups(root)
    for line in _read(root / "proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        kind, options = rest.split(" ")[0], rest.split(" ")[-1]
        if kind not in ("cgroup", "cgroup2") or (kind == "cgroup" and controller not in options.split(",")):
            continue
        group = own.get(controller if kind == "cgroup" else "")
        if group is None:
            continue
        top, mounted = (_unescape(field) for field in fields.split(" ")[3:5])
        mount = root / mounted.lstrip("/")
        folder = mount
        # a group that is not below what is mounted lies outside of the container, which sees its own group as the top
        if ".." not in group.parts and group.is_relative_to(top):
            folder = mount / group.relative_to(top)
        yield from (one for one in (folder, *folder.parents) if one.is_relative_to(mount))


def _own_groups(root: Path) -> dict[str, Path]:
    """The own group by the controllers of version 1; that of version 2 has the empty name."""
    groups: dict[str, Path] = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), Path(group))
    return groups


def _unescape(field: str) -> str:
    """A field of `mountinfo`, which has a space as `\\040`."""
    return field.replace("\\040", " ").replace("\\134", "\\")


def _read(file: Path) -> str:
    """Content of a file; empty where there is none, or where this process must not read it."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
