"""The benchmark of what purchases gain: its table and its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import benchmark_module


def receipt(kind: str, name: str, gain: float, expected: float = 0.02) -> dict[str, Any]:
    return {"kind": kind, "purchase": name, "gain": gain, "expected": expected, "seconds": 3.0, "error": 0.01}


def test_gains_are_told_by_kind_and_by_purchase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    gains = benchmark_module("gains")
    found = [receipt("view", "net@128", 0.03), receipt("view", "net@160", 0.01), receipt("turned", "x", 0.0)]
    asked: list[float] = []

    def run(_: Any, seconds: float) -> list[dict[str, Any]]:
        asked.append(seconds)
        return found

    monkeypatch.setattr(gains, "purchases_of", run)
    file = tmp_path / "rows.json"
    monkeypatch.setattr(
        "sys.argv", ["gains.py", "--datasets", "ICONS", "--seconds", "7", "--json", str(file)]
    )
    gains.main()
    printed = capsys.readouterr().out
    assert asked == [7.0]
    assert "net@160" in printed and "all of kind view" in printed
    rows = {
        row["name"].removeprefix("controller/gain_per_purchase/"): row for row in json.loads(file.read_text())
    }
    assert rows.keys() == {"view", "turned"}
    view = rows["view"]
    assert (view["value"], view["unit"], view["reference"]) == (
        pytest.approx(2.0),
        "points",
        pytest.approx(2.0),
    )
    assert (view["purchases"], view["seconds"]) == (2, 3.0)
