"""Decoding as a stage of whole runs: what the record says of it, and what follows where it leaves no time."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import MakeBundle, benchmark_module, write_meta_album

from ingestion import Event, IngestionSettings, prepare, run
from ingestion.result import IngestionResult


def ingest(data: Path, bundle: Path, output: Path, **settings: Any) -> tuple[IngestionResult, list[Event]]:
    events: list[Event] = []
    usual: dict[str, Any] = {
        "image_size": 16,
        "test_tasks_per_dataset": 3,
        "query_images_per_class": 4,
        "shots": (1, 5),
        "ways": (2, 4),
        "sandbox": "none",
    }
    asked = IngestionSettings(
        input_data_dir=data, submission=bundle, output_dir=output, **{**usual, **settings}
    )
    return run(asked, events.append), events


def record(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "ingestion.json").read_text())
    return content


@pytest.fixture
def slow_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding says that it took 40 s."""
    decode = prepare.decode_source
    monkeypatch.setattr(prepare, "decode_source", lambda *args: replace(decode(*args), seconds=40.0))


@pytest.mark.medium
@pytest.mark.usefixtures("slow_decoding")
def test_no_time_left_after_decoding_is_told_as_that(tmp_path: Path, make_bundle: MakeBundle) -> None:
    data, out = write_meta_album(tmp_path / "SET", [9] * 8), tmp_path / "out"
    bundle = make_bundle(meta_fit="raise AssertionError('was started')")
    result, events = ingest(data, bundle, out, time_budget_s=60, started=time.monotonic() - 59)
    assert not result.succeeded
    reason = "no time was left to begin meta-training; decoding images took 40 s of the 60 s of the whole run"
    assert all(reason in failure for failure in result.failures.values())
    assert "was started" not in "\n".join(event.text for event in events)
    assert [stage["name"] for stage in record(out)["stages"]] == ["prepare", "decode"]
    assert record(out)["stages"][1]["seconds"] == 40.0


@pytest.mark.medium
@pytest.mark.usefixtures("slow_decoding")
def test_meta_training_that_runs_out_of_time_after_decoding_says_so(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    data, out = write_meta_album(tmp_path / "SET", [9] * 8), tmp_path / "out"
    bundle = make_bundle(meta_fit="time.sleep(1000)")
    result, _ = ingest(data, bundle, out, time_budget_s=60, started=time.monotonic() - 45)
    reason = "ran out of time: meta-training; decoding images took 40 s of the 60 s of the whole run"
    assert all(reason in failure for failure in result.failures.values())
    assert "decoding images took 40 s of the 60 s of the whole run" in record(out)["notes"]


@pytest.mark.slow
def test_a_cold_cache_of_many_photographs_leaves_most_of_a_short_budget(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    data = benchmark_module("_photos").write_photos(tmp_path / "PHOTOS", 50, 500)
    check = """
        task = next(iter(meta_train_generator(1)))
        assert task.support_set[0].shape[1:] == (3, 96, 96)
        assert meta_train_generator.image_sets[0].classes == 30
        return MyLearner()
    """
    out = tmp_path / "out"
    result, _ = ingest(data, make_bundle(meta_fit=check), out, time_budget_s=40, image_size=96)
    assert result.succeeded and not result.failures, result.failures
    stages = {stage["name"]: stage["seconds"] for stage in record(out)["stages"]}
    assert list(stages) == ["prepare", "decode", "meta_train", "meta_test"]
    assert stages["decode"] < 20
    notes = "\n".join(record(out)["notes"])
    assert "25,000 images take about" in notes
    assert "images to learn from: " in notes and "of 15,000 decoded in" in notes
