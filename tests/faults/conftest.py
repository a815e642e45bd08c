"""Fixtures of the tests of faults."""

from __future__ import annotations

import pytest
from small_runs import SmallRuns

from autometa.search import purchases


@pytest.fixture
def small_runs(tiny_backbone: str, eager_only: None, monkeypatch: pytest.MonkeyPatch) -> SmallRuns:
    """Small runs of autometa that are alike."""
    monkeypatch.setattr(purchases, "ORIENTATION_STEPS", (1, 2))
    return SmallRuns(tiny_backbone, monkeypatch)
