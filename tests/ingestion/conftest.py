"""Fixtures of the tests of ingestion."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from ingestion_runs import Runner
from sandboxes import skip_without
from synthetic import write_meta_album


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_meta_album(tmp_path / "data" / "SET", [9] * 8)


@pytest.fixture
def runner(dataset: Path, tmp_path: Path) -> Runner:
    return Runner(dataset, tmp_path / "out")


@pytest.fixture(params=["bubblewrap", "landlock"])
def sandbox(request: pytest.FixtureRequest) -> Literal["bubblewrap", "landlock"]:
    """Each sandbox in turn. Where the machine has it, it must work: the test is skipped only where it has not."""
    choice: Literal["bubblewrap", "landlock"] = request.param
    skip_without(choice)
    return choice
