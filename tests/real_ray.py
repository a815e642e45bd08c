"""Clusters of Ray on this machine. Modules that use it are skipped where Ray is not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed")
ROOM, BESIDE = 2 * 10**9, 10**8
"""Bytes of a machine, and those for what units are sent."""
PLACE = "UNITS_PLACE"
MACHINE = {"num_cpus": 1, "memory": ROOM, "object_store_memory": BESIDE}


@contextmanager
def one_machine(*modules: str) -> Iterator[Any]:
    """A cluster with one machine, to which others can be added; these modules travel with what they define."""
    from ray.cluster_utils import Cluster as Machines  # noqa: PLC0415 - where Ray is installed

    for name in modules:
        ray.cloudpickle.register_pickle_by_value(sys.modules[name])
    made = Machines(initialize_head=True, head_node_args=MACHINE)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that units of work find by the variable `PLACE`."""
    monkeypatch.setenv(PLACE, str(tmp_path))
    return tmp_path


def add(machines: Any) -> Any:
    """One more machine."""
    return machines.add_node(**MACHINE)
