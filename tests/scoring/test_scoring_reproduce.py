"""How to reproduce a run: from what it has recorded, without paths, and harmless in a shell."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scoring import ScoringSettings, score
from scoring.reproduce import command_line, read_versions, recorded_options
from scoring.run_info import read_run_info

MakeRun = Callable[..., Path]
RECORD: dict[str, Any] = {
    "submission": "autometa",
    "seed": 93,
    "protocol": "within-domain",
    "image_size": 128,
    "sandbox": "landlock",
    "time_budget_s": 90.0,
    "memory_budget_bytes": 2_000_000_000,
    "gpu_memory_budget_bytes": None,
    "test_config": {"N": None, "min_N": 2, "max_N": 20, "k": 5, "query_images_per_class": 4},
}


def test_options_come_from_the_record() -> None:
    assert recorded_options(RECORD) == {
        "--time-budget": "90s",
        "--submission": "autometa",
        "--memory-budget": "2000000000",
        "--image-size": "128",
        "--seed": "93",
        "--protocol": "within-domain",
        "--sandbox": "landlock",
        "--ways": "2-20",
        "--shots": "5-5",
        "--query-per-class": "4",
    }


def test_a_strict_sandbox_and_isolated_tasks_come_back() -> None:
    options = recorded_options(RECORD | {"sandbox_asked": "strict", "isolate_tasks": True})
    assert options["--sandbox"] == "strict"
    assert command_line(options).endswith("\\\n  --isolate-tasks")


def test_what_is_no_plain_word_is_left_out() -> None:
    record = {"submission": "x; rm -rf /", "seed": [1], "protocol": None, "time_budget_s": float("nan")}
    assert recorded_options(record | {"test_config": {"N": "$(id)"}}) == {}
    assert command_line({}) == ""


def test_the_page_shows_the_command_and_the_versions(make_run: MakeRun, tmp_path: Path) -> None:
    metadata = "Total execution time: 12.5\nTasks per dataset: 10\n"
    confined = {"files": "Landlock " + "and more " * 30, "network": "seccomp, no sockets"}
    run = {"dataset": "demo 0123", "bundle": "autometa 4567"}
    results = make_run(
        metadata_ingestion=metadata,
        **{"ingestion.json": json.dumps(RECORD | {"confinement": confined}), "run.json": json.dumps(run)},
    )
    (results / "logs").mkdir()
    (results / "logs" / "environment.txt").write_text("cores: 2\n\ntorch==2.1\nleft_out==1\nnumpy==<b>\n")
    assert read_run_info(results).options["--tasks-per-dataset"] == "10"
    assert read_versions(results) == [("torch", "2.1")]
    page = score(ScoringSettings(results, tmp_path / "scores", debug_mode=0)).report.read_text()
    for words in (
        "python -m run_local --dataset DIR",
        "--time-budget 90s",
        "demo 0123",
        "2.1",
        "network: seccomp, no sockets",
    ):
        assert words in page
    assert str(tmp_path) not in page


@pytest.mark.medium
def test_memory_is_set_against_the_budget(make_run: MakeRun, tmp_path: Path) -> None:
    files = {"ingestion.json": json.dumps(RECORD), "memory.json": '{"meta-train": 500000000, "x": "y"}'}
    page = score(ScoringSettings(make_run(**files), tmp_path / "scores")).report.read_text()
    assert "0.50 GB" in page and "25 %" in page
