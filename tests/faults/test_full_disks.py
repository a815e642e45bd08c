"""A disk that is full at one writer after the other: runs go on, or end with one line; what is on disk stays."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disks import FULL, FullDisk
from grid_cases import FakeRunner, tune
from ingestion_runs import TASKS, Runner
from small_runs import POOL, SmallRuns, answers_well, choice_of, measured, support
from synthetic import MakeBundle, write_meta_album

from autometa.classifier.estimator import FewShotClassifier
from autometa.cli.program import told_of
from autometa.core.errors import UnwritableFile
from autometa.tuning.store import Store
from ingestion import InputError
from ingestion.albums import read_meta_album
from ingestion.images import decode_dataset
from scoring import ScoringSettings, score


@pytest.fixture
def expected(tmp_path: Path, small_runs: SmallRuns) -> dict[str, Any]:
    """What a run chooses that has all the space it needs."""
    (tmp_path / "undisturbed").mkdir()
    small_runs(tmp_path / "undisturbed")
    return choice_of(tmp_path / "undisturbed")


@pytest.mark.medium
@pytest.mark.parametrize("pattern", ["journal.jsonl", "stages.json", "choices.json", "*.features"])
def test_a_log_or_a_cache_that_cannot_be_written_costs_one_line(
    tmp_path: Path,
    small_runs: SmallRuns,
    expected: dict[str, Any],
    pattern: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    disk = FullDisk(monkeypatch, pattern)
    lines = small_runs(folder, feature_cache=tmp_path / "cache")
    assert disk.failed
    (told,) = [line for line in lines if FULL in line]
    assert "goes on without it" in told and "free space there" in told and str(tmp_path) in told
    assert choice_of(folder) == expected
    assert not list(folder.glob(".*")) and not list((tmp_path / "cache").rglob("*.writing"))


@pytest.mark.medium
@pytest.mark.parametrize(
    ("pattern", "spared", "stage"),
    [("learner.json", 1, "bootstrap"), ("learner.json", 3, "search"), ("metrics-*", 0, "bootstrap")],
)
def test_a_learner_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path,
    small_runs: SmallRuns,
    pattern: str,
    spared: int,
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = FullDisk(monkeypatch, pattern, spared=spared)
    lines: list[str] = []
    run = small_runs.make(tmp_path, lines.append)
    run.bootstrap()
    learner = run.run(POOL)
    assert disk.failed and answers_well(tmp_path) == stage
    told = [line for line in lines if "learner not saved, the one before stays" in line]
    assert told and all(FULL in line and "free space there" in line for line in told)
    assert learner.validation["stage"] == stage  # what the program returns is what is on disk
    assert measured(tmp_path), "the search went on"
    with (
        pytest.raises(UnwritableFile, match=f"{FULL}.*free space there")
        if pattern == "learner.json"
        else nullcontext()
    ):
        learner.save(tmp_path)
    assert answers_well(tmp_path) == stage


def test_a_first_learner_that_cannot_be_written_is_told_with_the_fix(
    tmp_path: Path, small_runs: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    FullDisk(monkeypatch, "backbone-*")
    lines: list[str] = []
    learner = small_runs.make(tmp_path, lines.append).bootstrap()
    assert "learner not saved" in lines[0] and FULL in lines[0]
    with pytest.raises(
        UnwritableFile, match=rf"backbone-tiny-\w+.safetensors: .*{FULL}.*free space"
    ) as raised:
        learner.save(tmp_path)
    assert raised.value.plain  # ingestion shows it without a traceback
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob(".*"))


@pytest.mark.medium
@pytest.mark.parametrize("pattern", ["classifier.json", "support-*"])
def test_a_classifier_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, tiny_backbone: str, eager_only: None, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels, _ = support()
    before = FewShotClassifier(preset=tiny_backbone).fit(np.moveaxis(images, 1, -1), labels)
    before.save(tmp_path)
    now = FewShotClassifier(preset=tiny_backbone).fit(np.moveaxis(images[:4], 1, -1), labels[:4])
    with monkeypatch.context() as patch, pytest.raises(UnwritableFile, match=f"{FULL}.*free space there"):
        FullDisk(patch, pattern)
        now.save(tmp_path)
    assert FewShotClassifier.load(tmp_path).classes_.tolist() == [0, 1, 2]
    now.save(tmp_path)
    assert FewShotClassifier.load(tmp_path).classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("pattern", "spared", "kept"),
    [("autometa-*.json", 1, 1), ("budget.json", 1, 2), ("budget.html", 0, 1), ("recommended.yaml", 0, 3)],
)
def test_a_grid_of_budgets_ends_with_a_line_and_keeps_its_points(
    tmp_path: Path, pattern: str, spared: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runner = tmp_path / "grid", FakeRunner()
    with monkeypatch.context() as patch, pytest.raises(OSError, match=FULL) as raised:
        FullDisk(patch, pattern, spared=spared)
        tune(folder, runner)
    line = str(raised.value) if isinstance(raised.value, UnwritableFile) else told_of(raised.value)
    assert str(folder) in line and "free space there" in line
    assert len(Store(folder).load()) == kept
    again = FakeRunner()
    budget = tune(folder, again, resume=True, output=str(folder))
    assert len(budget.points) == 3 and budget.recommendation is not None
    assert len([name for name, shares in again.ran if shares]) == 3 - kept  # others check what is recommended
    assert json.loads((folder / "budget.json").read_text())["recommendation"]


def test_a_full_image_cache_is_one_line_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = read_meta_album(write_meta_album(tmp_path / "D", [3, 3]))
    for pattern in ("images.npy", "notes"):
        with (
            monkeypatch.context() as patch,
            pytest.raises(InputError, match=f"{FULL}; free space.*AUTOMETA_CACHE"),
        ):
            FullDisk(patch, pattern)
            decode_dataset(dataset, 16, tmp_path)
        assert not list((tmp_path / "images").glob("writing-*"))
    assert len(decode_dataset(dataset, 16, tmp_path).images) == 6


SAVES = """
    (Path(os.environ["METADL_MODEL_DIR"]) / "stages.json").write_text("[]")
    print("something")
    return MyLearner()
"""


@pytest.mark.medium
def test_files_that_ingestion_can_do_without(
    runner: Runner, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    patterns = "task_2.predict", "stages.json", "samples.json", "submission.log", "memory.json"
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, *patterns)
        result = runner(make_bundle(meta_fit=SAVES), memory_budget_bytes=8 * 2**30)
    assert result.succeeded and set(result.failures) == {2} and set(disk.failed) == set(patterns)
    assert FULL in result.failures[2] and "free space" in result.failures[2]
    for name in ("stages.json", "samples.json", "memory.json"):
        assert any(name in note and FULL in note for note in runner.texts("note").splitlines()), name
    assert not list(runner.output.rglob(".*"))
    assert len(list(runner.output.glob("task_*.predict"))) == TASKS - 1
    assert runner.accuracy(1) > 0.7


@pytest.mark.medium
@pytest.mark.parametrize("name", ["run.json", "ingestion.json", "truth.json"])
def test_files_that_end_ingestion_with_a_line(
    runner: Runner, make_bundle: MakeBundle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(OSError, match=FULL) as raised:
        FullDisk(patch, name)
        runner(make_bundle(meta_fit=SAVES))
    assert name in told_of(raised.value) and "free space there" in told_of(raised.value)
    assert not list(runner.output.rglob(".*"))
    assert len(list(runner.output.glob("task_*.predict"))) == (0 if name == "run.json" else TASKS)


@pytest.mark.medium
def test_scores_that_cannot_be_written_are_told_and_those_before_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, scores = tmp_path / "ingestion", tmp_path / "scoring"
    results.mkdir()
    truth = {"task": 1, "dataset": "D", "ways": 2, "shots": 1, "labels": [0, 1]}
    content = {"format": "autometa-truth-1", "seed": 1, "datasets": ["D"], "tasks": [truth]}
    (results / "truth.json").write_text(json.dumps(content))
    (results / "task_1.predict").write_text("1 0\n0 1\n")
    for pattern in ("scores.json", "details.json", "report.html"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match=FULL) as raised:
            FullDisk(patch, pattern)
            score(ScoringSettings(results_dir=results, output_dir_scoring=scores))
        assert pattern in str(raised.value)
        assert not list(scores.glob(".*"))
    score(ScoringSettings(results_dir=results, output_dir_scoring=scores))
    assert json.loads((scores / "scores.json").read_text())["tasks"] == 1
