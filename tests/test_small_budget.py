"""The demo within a memory budget that holds little more than the libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autometa.core.footprint import measure_footprint

ROOM_BYTES = 100_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched by the files of Linux in /proc")
def test_the_demo_is_answered_within_little_memory(tmp_path: Path) -> None:
    """In a process of its own: what earlier tests left in this one would count."""
    cap = max(measure_footprint().least_bytes + ROOM_BYTES, 500_000_000)
    given = ["--memory-budget", str(cap), "--time-budget", "60s", "--tasks-per-dataset", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "autometa", "run", *given, "--output", str(tmp_path / "run")],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert scores["overall"]["missing"] == 0
    assert scores["overall"]["normalised_accuracy"] > 0.5
    peaks = json.loads((tmp_path / "run" / "ingestion" / "memory.json").read_text())
    assert {"meta-train", "meta-test"} == peaks.keys() and max(peaks.values()) <= cap
