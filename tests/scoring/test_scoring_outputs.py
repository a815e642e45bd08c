"""The files for programs, the output folder, and that nothing is ever half written."""

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scoring import ScoringSettings, outputs, score
from scoring.errors import OutputError
from scoring.files import write_bytes
from scoring.outputs import prepare_folder
from scoring.text import safe_keys, short_prefixes

MakeRun = Callable[..., Path]

SCORES_TXT = """\
overall_score: 0.8333333333333334
overall_accuracy: 0.9166666666666666
overall_macro_f1_score: 0.9111111111111111
overall_macro_precision: 0.9444444444444443
overall_macro_recall: 0.9166666666666666
dataset_1: 1.0
dataset_1_accuracy: 1.0
dataset_1_macro_f1_score: 1.0
dataset_1_macro_precision: 1.0
dataset_1_macro_recall: 1.0
dataset_2: 0.75
dataset_2_accuracy: 0.875
dataset_2_macro_f1_score: 0.8666666666666667
dataset_2_macro_precision: 0.9166666666666666
dataset_2_macro_recall: 0.875
2_ways_normalized_accuracy: 0.75
2_ways_accuracy: 0.875
2_ways_macro_f1_score: 0.8666666666666667
2_ways_macro_precision: 0.9166666666666666
2_ways_macro_recall: 0.875
3_ways_normalized_accuracy: 1.0
3_ways_accuracy: 1.0
3_ways_macro_f1_score: 1.0
3_ways_macro_precision: 1.0
3_ways_macro_recall: 1.0
1_shot_normalized_accuracy: 0.5
1_shot_accuracy: 0.75
1_shot_macro_f1_score: 0.7333333333333334
1_shot_macro_precision: 0.8333333333333333
1_shot_macro_recall: 0.75
2_shot_normalized_accuracy: 1.0
2_shot_accuracy: 1.0
2_shot_macro_f1_score: 1.0
2_shot_macro_precision: 1.0
2_shot_macro_recall: 1.0
duration: 12.5"""


@pytest.fixture
def scored(make_run: MakeRun) -> Path:
    results = make_run(**{"ingestion.json": '{"time_budget_s": 60, "stages": [{"name": "a", "seconds": 2}]}'})
    return score(ScoringSettings(results, results.parent / "scores")).output_dir


def _pairs(text: str) -> list[tuple[str, float]]:
    return [(key, float(value)) for key, value in (line.split(": ") for line in text.split("\n"))]


@pytest.mark.medium
def test_scores_txt_has_the_keys_order_and_values_of_the_original(scored: Path) -> None:
    written, expected = _pairs((scored / "scores.txt").read_text()), _pairs(SCORES_TXT)
    assert [key for key, _ in written] == [key for key, _ in expected]
    assert [value for _, value in written] == pytest.approx([value for _, value in expected], abs=1e-9)


@pytest.mark.medium
def test_scores_json_is_flat_and_numeric(scored: Path) -> None:
    scores: dict[str, Any] = json.loads((scored / "scores.json").read_text())
    assert all(type(value) in (int, float) and re.fullmatch(r"\w+", key) for key, value in scores.items())
    assert scores["normalized_accuracy"] == pytest.approx(5 / 6)
    assert (scores["tasks"], scores["tasks_missing"]) == (3, 0)
    assert (scores["duration_s"], scores["time_budget_s"]) == (12.5, 60)
    assert scores["dataset_2"] == scores["B10_normalized_accuracy"] == pytest.approx(0.75)
    assert {"B2_normalized_accuracy_ci95", "normalized_accuracy_ci95", "macro_f1", "macro_recall"} <= set(
        scores
    )


@pytest.mark.medium
def test_details_hold_groups_tasks_and_the_run(scored: Path) -> None:
    details: dict[str, Any] = json.loads((scored / "details.json").read_text())
    assert list(details["datasets"]) == ["B2", "B10"]
    assert list(details["ways"]) == ["2", "3"]
    assert details["shots"]["1"]["metrics"]["accuracy"] == {"mean": 0.75, "ci95": 0.0, "n": 1}
    assert details["tasks"][0] | {"metrics": None} == {
        "task": 1,
        "dataset": "B10",
        "ways": 2,
        "shots": 1,
        "queries": 4,
        "metrics": None,
        "status": "ok",
        "reason": None,
    }
    assert details["run"]["stages"] == [{"name": "a", "seconds": 2.0}]
    assert details["run"]["truth_seed"] == 93


@pytest.mark.medium
def test_plots_bear_the_names_of_the_original_but_for_the_new_one(scored: Path) -> None:
    metrics = ("normalized_accuracy", "accuracy", "macro_f1_score", "macro_precision", "macro_recall")
    kinds = ("overall_histogram", "heatmap_dataset", "heatmap_way", "heatmap_shot")
    plots = {path.name: path.read_bytes() for path in (scored / "plots").iterdir()}
    names = {f"{kind}_{metric}.png" for kind in kinds for metric in metrics}
    assert set(plots) == names | {"reliability.png"}
    assert all(data.startswith(b"\x89PNG") for data in plots.values())


def test_an_old_folder_is_renamed_and_an_empty_one_used(tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    folder.mkdir()
    prepare_folder(folder, [], overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["scores"]
    for content in ("first", "second"):
        (folder / "precious").write_text(content)
        prepare_folder(folder, [], overwrite=False)
    assert list(folder.iterdir()) == []
    renamed = sorted(path for path in tmp_path.iterdir() if path != folder)
    assert all(re.fullmatch(r"scores_\d\d(-\d\d){5}(_2)?", path.name) for path in renamed)
    assert [(path / "precious").read_text() for path in renamed] == ["first", "second"]


def test_a_mount_point_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "scores"
    (folder / "plots").mkdir(parents=True)
    for name in ("scores.json", "of-the-platform"):
        (folder / name).touch()

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    prepare_folder(folder, [], overwrite=False)
    assert [path.name for path in folder.iterdir()] == ["of-the-platform"]


def test_only_an_old_scoring_output_is_emptied(tmp_path: Path) -> None:
    folder, outside = tmp_path / "scores", tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (folder / "plots").mkdir(parents=True)
    (folder / "link").symlink_to(outside)
    with pytest.raises(OutputError, match=r"no scores\.txt"):
        prepare_folder(folder, [], overwrite=True)
    assert (folder / "plots").is_dir()
    (folder / "scores.txt").touch()
    prepare_folder(folder, [], overwrite=True)
    assert list(folder.iterdir()) == []
    assert (outside / "kept").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_inputs_are_never_moved_or_emptied(tmp_path: Path, overwrite: bool) -> None:
    results = tmp_path / "scores" / "results"
    results.mkdir(parents=True)
    (tmp_path / "scores" / "scores.txt").touch()
    with pytest.raises(OutputError, match="holds an input"):
        prepare_folder(tmp_path / "scores", [results], overwrite=overwrite)
    with pytest.raises(OutputError, match="holds an input"):
        prepare_folder(results, [results], overwrite=overwrite)
    assert results.is_dir()


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "scores").touch()
    with pytest.raises(OutputError, match="is a file"):
        prepare_folder(tmp_path / "scores", [], overwrite=True)
    with pytest.raises(OutputError, match="cannot be prepared"):
        prepare_folder(tmp_path / "scores" / "inner", [], overwrite=True)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scores.txt").write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "killed")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="killed"):
            write_bytes(tmp_path / "scores.txt", b"new")
    assert os.listdir(tmp_path) == ["scores.txt"]  # noqa: PTH208
    assert (tmp_path / "scores.txt").read_text() == "old"
    write_bytes(tmp_path / "scores.txt", b"new")
    assert (tmp_path / "scores.txt").read_text() == "new"


@pytest.mark.medium
def test_keys_are_made_once_for_all_datasets(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anew for each dataset would take datasets × datasets."""
    asked: list[int] = []

    def counting(prefixes: list[str], suffix: str) -> list[str]:
        asked.append(len(prefixes))
        return short_prefixes(prefixes, suffix)

    monkeypatch.setattr(outputs, "short_prefixes", counting)
    results = make_run()
    score(ScoringSettings(results, results.parent / "scores"))
    assert len(asked) == 3 and set(asked) == {2}


def test_many_datasets_of_the_same_name_have_keys_of_their_own() -> None:
    keys = safe_keys(["same"] * 5000 + ["same_3"])
    assert keys[:3] == ["same", "same_2", "same_3"] and len(set(keys)) == 5001
    long = ["x" * 40 + str(number) for number in range(3000)]
    assert len(set(short_prefixes(long, "_normalized_accuracy_ci95"))) == 3000
