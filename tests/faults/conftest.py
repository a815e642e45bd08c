"""Fixtures of the tests of faults, which lie across packages: what the tests of others share serves here, too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.extend(str(Path(__file__).parents[1] / name) for name in ("ingestion", "tuning"))

from ingestion_runs import Runner
from small_runs import SmallRuns
from synthetic import write_meta_album

from autometa.search import purchases


@pytest.fixture
def small_runs(tiny_backbone: str, eager_only: None, monkeypatch: pytest.MonkeyPatch) -> SmallRuns:
    """Small runs of autometa that are alike."""
    monkeypatch.setattr(purchases, "ORIENTATION_STEPS", (1, 2))
    return SmallRuns(tiny_backbone, monkeypatch)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """Runs of ingestion on a small dataset."""
    return Runner(write_meta_album(tmp_path / "data" / "SET", [9] * 8), tmp_path / "out")
