"""Fixtures of whole ingestion runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from ingestion_cases import Runner
from synthetic import write_meta_album


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """Runs bundles on a small dataset."""
    return Runner(write_meta_album(tmp_path / "data" / "SET", [9] * 8), tmp_path / "out")
