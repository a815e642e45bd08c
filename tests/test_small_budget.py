"""The demo within a memory budget that holds little more than the libraries."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from autometa.cli.run import run
from autometa.core.footprint import measure_footprint

ROOM_BYTES = 100_000_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched by the files of Linux in /proc")
def test_the_demo_is_answered_within_little_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cap = max(measure_footprint().least_bytes + ROOM_BYTES, 500_000_000)
    given = ["--memory-budget", str(cap), "--time-budget", "60s", "--tasks-per-dataset", "1", "--json"]
    with pytest.raises(SystemExit) as ended:
        run([*given, "--output", str(tmp_path / "run")])
    assert ended.value.code == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["overall"]["missing"] == 0
    assert scores["overall"]["normalised_accuracy"] > 0.5
    peaks = json.loads((tmp_path / "run" / "ingestion" / "memory.json").read_text())
    assert {"meta-train", "meta-test"} == peaks.keys() and max(peaks.values()) <= cap
