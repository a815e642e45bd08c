"""Limits of control groups, read from made-up `proc` and `sys` trees."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autometa.backbones.engines import eager
from autometa.core import budget, machine
from autometa.core.budget import MemoryBudget
from autometa.core.cgroups import count_cores, cpu_quota, memory_limit
from autometa.core.machine import Machine

ROOT = Path(__file__).parents[2]
VERSION_2 = "31 23 0:28 {top} /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
VERSION_1 = "32 31 0:29 {top} /sys/fs/cgroup/{folder} rw,relatime - cgroup cgroup rw,{controllers}"


def tree(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """`proc/self/cgroup`, `proc/self/mountinfo`, and files below `sys/fs/cgroup`."""
    written = {
        "proc/self/cgroup": groups,
        "proc/self/mountinfo": f"22 1 8:1 / / rw - ext4 /dev/sda rw\n{mounts}",
    }
    for name, content in (written | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def version_1(top: str = "/") -> str:
    cpu = VERSION_1.format(top=top, folder="cpu,cpuacct", controllers="cpu,cpuacct")
    memory = VERSION_1.format(top=top, folder="memory", controllers="memory")
    return f"{cpu}\n{memory}"


@pytest.mark.parametrize(
    ("own", "outer", "quota"),
    [
        ("150000 100000", "max 100000", 1.5),
        ("max 100000", "50000 100000", 0.5),
        ("max 100000", "max 100000", None),
    ],
)
def test_version_2_the_least_of_the_own_group_and_those_around_it(
    tmp_path: Path, own: str, outer: str, quota: float | None
) -> None:
    files = {"jobs/cpu.max": outer, "jobs/mine/cpu.max": own, "jobs/other/cpu.max": "1000 100000"}
    root = tree(tmp_path, "0::/jobs/mine", VERSION_2.format(top="/"), files)
    assert cpu_quota(root) == quota


def test_version_2_memory(tmp_path: Path) -> None:
    files = {
        "memory.max": "max",
        "jobs/memory.max": "3000",
        "jobs/memory.high": "2000",
        "jobs/mine/memory.max": "max",
    }
    root = tree(tmp_path, "0::/jobs/mine", VERSION_2.format(top="/"), files)
    assert memory_limit(root) == 2000
    (root / "sys/fs/cgroup/jobs/mine/memory.max").write_text("1000\n")
    assert memory_limit(root) == 1000


def test_version_1(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/box/cpu.cfs_quota_us": "250000", "cpu,cpuacct/box/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": "9223372036854771712", "memory/box/memory.limit_in_bytes": "5000",
    }  # fmt: skip
    root = tree(tmp_path, "4:memory:/box\n2:cpu,cpuacct:/box\n0::/", version_1(), files)
    assert (cpu_quota(root), memory_limit(root)) == (2.5, 5000)
    (root / "proc/self/cgroup").write_text("4:memory:/\n2:cpu,cpuacct:/\n")
    assert (cpu_quota(root), memory_limit(root)) == (None, None)


@pytest.mark.parametrize("top", ["/docker/a1b2", "/../.."])
def test_a_container_that_sees_its_own_group_as_the_top(tmp_path: Path, top: str) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "50000",
        "memory/memory.limit_in_bytes": "5000",
    }  # fmt: skip
    root = tree(tmp_path, "4:memory:/docker/a1b2\n2:cpu,cpuacct:/docker/a1b2", version_1(top), files)
    assert (cpu_quota(root), memory_limit(root)) == (2.0, 5000)


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert (cpu_quota(tmp_path), memory_limit(tmp_path)) == (None, None)


@pytest.mark.parametrize(("quota", "cores"), [("150000", 2), ("20000", 1), ("6400000", 4), ("max", 4)])
def test_cores_are_those_of_affinity_within_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    root = tree(tmp_path, "0::/", VERSION_2.format(top="/"), {"cpu.max": f"{quota} 100000"})
    assert count_cores(root) == cores


def test_the_machine_is_what_the_limits_leave_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "count_cores", lambda: 6)
    monkeypatch.setattr(budget, "memory_limit", lambda: 1000)
    monkeypatch.delenv("METADL_CORES", raising=False)
    assert (Machine.detect().cores, Machine.detect().memory_bytes) == (6, 1000)
    assert MemoryBudget.of_machine().total_bytes == 800
    monkeypatch.setenv("METADL_CORES", "3")
    assert Machine.detect().cores == 3


@pytest.mark.parametrize(("told", "threads"), [(None, [2]), ("8", [])])
def test_threads_are_as_many_as_the_cores_to_use(
    monkeypatch: pytest.MonkeyPatch, told: str | None, threads: list[int]
) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(eager, "Machine", SimpleNamespace(detect=lambda: SimpleNamespace(cores=2)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    network: Any = torch.nn.Identity()
    eager.Eager(network, "cpu")
    assert set_to == threads


def test_ingestion_has_an_equal_copy() -> None:
    copies = [(ROOT / name / "cgroups.py").read_text() for name in ("autometa/core", "ingestion")]
    assert copies[0] == copies[1]
