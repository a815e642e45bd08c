"""From the files of a run to a point: what does not fit, and what failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autometa.tuning.collect import collect_point
from autometa.tuning.grid import Place
from autometa.tuning.point import Point
from ingestion import IngestionResult
from ingestion.resume import RunIdentity
from scoring import ScoreSummary


def collect(
    folder: Path, failures: dict[int, str], summary: ScoreSummary | None = None, **values: Any
) -> Point:
    result = IngestionResult(folder, 2, failures, seconds={"total": 30.0}, **values)
    return collect_point(Place(time_budget_s=60.0), result, summary, shares=True)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("RuntimeError: an error in the runtime of memory_format", "failed"),
        ("the submission's process was killed before it had answered", "failed"),
        ("no learner was saved (ran out of time: meta-training)", "does_not_fit"),
        ("no learner was saved (no time was left to begin meta-training)", "does_not_fit"),
        ("the time budget was used up before this task", "does_not_fit"),
        ("used 2.10 GB of memory, the budget is 2.00 GB", "does_not_fit"),
        ("used 9.10 GB of GPU memory, the budget is 9.00 GB", "does_not_fit"),
    ],
)
@pytest.mark.parametrize("tasks", [1, 2])
def test_only_want_of_time_or_memory_is_no_fit(tmp_path: Path, reason: str, status: str, tasks: int) -> None:
    point = collect(tmp_path, dict.fromkeys(range(1, tasks + 1), reason))
    assert point.status == status and reason in point.reason


def test_what_did_not_fit_is_told_before_what_failed_for_it(tmp_path: Path) -> None:
    reason = "used 2.10 GB of memory, the budget is 2.00 GB"
    point = collect(tmp_path, {1: "the submission did not start for meta-test", 2: reason})
    assert (point.status, point.reason) == ("does_not_fit", reason)


def test_tasks_are_known_by_what_they_follow_from_and_not_by_the_size_of_images(tmp_path: Path) -> None:
    def hashed(px: int, **changed: Any) -> str:
        form: dict[str, int | None] = {"per_dataset": 3, "image_size": px}
        own = {"dataset": "photos-1", "bundle": "b", "seed": 93, "protocol": "within-domain", "tasks": form}
        identity = RunIdentity.model_validate({**own, **changed})
        (tmp_path / "run.json").write_text(identity.model_dump_json(), encoding="utf-8")
        return collect(tmp_path, {}).tasks

    assert hashed(128) == hashed(96, bundle="other") != ""
    assert len({hashed(128), hashed(128, seed=1), hashed(128, dataset="photos-2")}) == 3
    (tmp_path / "run.json").unlink()
    assert collect(tmp_path, {}).tasks == ""


def test_a_run_that_cannot_be_scored_failed(tmp_path: Path) -> None:
    point = collect(tmp_path, {})
    assert (point.status, point.reason) == ("failed", "ingestion worked, scoring did not")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("stages.json", '{"a": 1}'),
        ("stages.json", "nonsense"),
        ("choices.json", '{"format": "autometa-choices-1", "trials": 3}'),
        ("choices.json", "\0"),
    ],
)
def test_what_a_submission_says_of_itself_ends_no_grid(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert collect(tmp_path, {}).chosen == []


def test_trials_may_have_no_figures(tmp_path: Path) -> None:
    trial = '{"name": "a", "kind": "view", "predicted_s": null, "actual_s": 2.0, "expected_gain": null}'
    served = '{"seconds": 7.5, "stage": "first"}'
    text = f'{{"format": "autometa-choices-1", "trials": [{trial}], "served": [{served}]}}'
    (tmp_path / "choices.json").write_text(text)
    assert collect(tmp_path, {}).first_learner_s == 7.5


@pytest.mark.parametrize("number", ["12.5", "inf", "nan"])
def test_only_autometa_itself_is_charged_for_shared_work(tmp_path: Path, number: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("charged_s", "shared_peak_bytes"):
        (model / name).write_text(number)
    result = IngestionResult(tmp_path, 2, {}, seconds={"total": 30.0})
    other = collect_point(Place(time_budget_s=60.0, submission="random"), result, None, shares=False)
    assert (other.total_s, other.peak_bytes) == (30.0, None)
    assert collect(tmp_path, {}).charged_s == (12.5 if number == "12.5" else 0.0)
