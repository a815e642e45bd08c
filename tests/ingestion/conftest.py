"""Fixtures of the tests of ingestion."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import pytest
from ingestion_runs import Runner
from synthetic import write_meta_album

from ingestion.errors import InputError
from ingestion.sandbox import choose_sandbox

_LANDLOCK_CREATE_RULESET = 444


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_meta_album(tmp_path / "data" / "SET", [9] * 8)


@pytest.fixture
def runner(dataset: Path, tmp_path: Path) -> Runner:
    return Runner(dataset, tmp_path / "out")


def bubblewrap_is_here() -> bool:
    """Whether the program is installed and this machine lets it make namespaces, asked without ingestion."""
    if shutil.which("bwrap") is None:
        return False
    probe = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    return subprocess.run(probe, capture_output=True, timeout=10, check=False).returncode == 0


def landlock_is_here() -> bool:
    """Whether the kernel has Landlock, asked without ingestion and without its package."""
    version_of_abi = 1
    return ctypes.CDLL(None).syscall(_LANDLOCK_CREATE_RULESET, None, 0, version_of_abi) > 0


@pytest.fixture(params=["bubblewrap", "landlock"])
def sandbox(request: pytest.FixtureRequest) -> Literal["bubblewrap", "landlock"]:
    """Each sandbox in turn. Where the machine has it, it must work: the test is skipped only where it has not."""
    choice: Literal["bubblewrap", "landlock"] = request.param
    try:
        choose_sandbox(choice)
    except InputError as error:
        is_here = bubblewrap_is_here() if choice == "bubblewrap" else landlock_is_here()
        assert not is_here, f"this machine has {choice}, but ingestion does not use it: {error}"
        pytest.skip(str(error))
    return choice
