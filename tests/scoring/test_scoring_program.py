"""The program as a whole: bad predictions never stop it, the command keeps its promises."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import scoring
from scoring import ScoringError, ScoringSettings, score
from scoring.__main__ import main

MakeRun = Callable[..., Path]
ROOT = Path(scoring.__file__).parents[1]

NAN = "nan nan\n" * 4


def _details(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "details.json").read_text())
    return content


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_the_public_names_are_pinned() -> None:
    assert scoring.__all__ == ["GroupScore", "ScoreSummary", "ScoringError", "ScoringSettings", "score"]


def test_the_import_is_light() -> None:
    heavy = ["jinja2", "matplotlib", "pydantic", "scipy"]
    code = f"import scoring, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == b"[]"


@pytest.mark.medium
def test_the_summary_tells_what_a_table_needs(make_run: MakeRun, tmp_path: Path) -> None:
    summary = score(ScoringSettings(make_run(), tmp_path / "scores"))
    assert (summary.overall.tasks, summary.overall.missing) == (3, 0)
    assert summary.overall.mean == pytest.approx(5 / 6)
    assert summary.overall.metrics["accuracy"].mean == pytest.approx(11 / 12)
    assert [(group.name, group.tasks) for group in summary.datasets] == [("B2", 1), ("B10", 2)]
    assert summary.datasets[0].ci95 == 0 < summary.datasets[1].ci95
    assert (summary.duration_s, summary.time_budget_s, summary.notes) == (12.5, None, ())
    assert summary.report.is_file()


@pytest.mark.medium
def test_bad_predictions_score_as_chance_with_their_reasons(make_run: MakeRun, tmp_path: Path) -> None:
    failures = json.dumps({"failures": {"1": "time is up", "3": "fit failed"}})
    files = {"task_1.predict": NAN, "task_2.predict": "9\n" * 6, "task_3.predict": None}
    results = make_run(**files, **{"ingestion.json": failures})
    summary = score(ScoringSettings(results, tmp_path / "scores"))
    assert (summary.overall.mean, summary.overall.missing) == (0, 3)
    details = _details(tmp_path / "scores")
    assert details["tasks"][1]["metrics"] == {
        "normalized_accuracy": 0.0,
        "accuracy": 1 / 3,
        "macro_f1": 1 / 3,
        "macro_precision": 1 / 3,
        "macro_recall": 1 / 3,
    }
    assert [task["status"] for task in details["tasks"]] == ["missing", "malformed", "missing"]
    reasons = [row["reason"] for row in details["failures"]]
    assert reasons[0].startswith("missing: not answered")
    assert reasons[0].endswith(": time is up")
    assert "label 9 is not in 0 … 2" in reasons[1]
    assert reasons[2] == "missing: there is no file task_3.predict: fit failed"


def test_what_does_not_fit_together_is_noted(make_run: MakeRun, tmp_path: Path) -> None:
    results = make_run(
        **{
            "task_4.predict": "0\n",
            "task_1.predict": "0\n",
            "task_2.predict": "0\n",
            "metadata_ingestion": "Number of test datasets: 2\nTasks per dataset: 100",
            "ingestion.json": '{"failures": {"3": "late"}}',
        }
    )
    notes = score(ScoringSettings(results, tmp_path / "scores", debug_mode=0)).notes
    for words in ("'task_4.predict'", "2 datasets with 100 tasks", "most predictions", "task 3 was scored"):
        assert sum(words in note for note in notes) == 1


@pytest.mark.medium
def test_debug_mode_0_computes_the_main_metric_alone(make_run: MakeRun, tmp_path: Path) -> None:
    score(ScoringSettings(make_run(), tmp_path / "scores", debug_mode=0))
    keys = [line.split(":")[0] for line in (tmp_path / "scores" / "scores.txt").read_text().split("\n")]
    assert keys[:4] == ["overall_score", "dataset_1", "dataset_2", "2_ways_normalized_accuracy"]
    assert len(keys) == 8
    assert "accuracy" not in json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert len(list((tmp_path / "scores" / "plots").iterdir())) == 4


def test_private_names_are_nowhere(make_run: MakeRun, tmp_path: Path) -> None:
    info = {"failures": {"1": "B10 broke"}, "notes": ["B2 is small"], "set_aside": ["B2: class oak"]}
    results = make_run(**{"ingestion.json": json.dumps(info), "task_1.predict": None})
    settings = ScoringSettings(results, tmp_path / "scores", debug_mode=0, private_information=True)
    summary = score(settings)
    assert [group.name for group in summary.datasets] == ["Dataset 1", "Dataset 2"]
    for path in (tmp_path / "scores").glob("*.*"):
        text = path.read_text()
        if path.suffix == ".html":  # the plots in it are base64, where B2 means nothing
            text = "".join(part.split('"', 1)[-1] for part in text.split("base64,"))
        assert not any(word in text for word in ("B10", "B2", "oak")), path.name


def test_scores_stand_without_plots(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scoring.plots", None)
    summary = score(ScoringSettings(make_run(), tmp_path / "scores"))
    assert "plots could not be drawn" in summary.notes[-1]
    assert summary.report.is_file()


def test_an_error_leaves_the_old_output_alone(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "scores.txt").write_text("old")
    results = make_run(**{"truth.json": "{}"})
    with pytest.raises(ScoringError, match=r"truth\.json"):
        score(ScoringSettings(results, tmp_path / "scores", overwrite_previous_results=True))
    assert (tmp_path / "scores" / "scores.txt").read_text() == "old"


@pytest.mark.parametrize("dash", ["_", "-"])
def test_the_command_takes_the_flags_of_the_original(make_run: MakeRun, tmp_path: Path, dash: str) -> None:
    flags = {
        "seed": "93",
        "verbose": "True",
        "debug_mode": "0",
        "private_information": "False",
        "overwrite_previous_results": "True",
        "test_tasks_per_dataset": "100",
        "input_data_dir": "nowhere",
        "results_dir": str(make_run()),
        "output_dir_scoring": str(tmp_path / "scores"),
    }
    result = _run(*(f"--{name.replace('_', dash)}={value}" for name, value in flags.items()))
    assert result.exit_code == 0, result.output
    assert "B10" in result.output
    assert "0.833 ± 0.717" in result.output
    assert (tmp_path / "scores" / "scores.json").is_file()


def test_the_command_can_be_silent_and_takes_a_truth(make_run: MakeRun, tmp_path: Path) -> None:
    results = make_run()
    truth = tmp_path / "elsewhere.json"
    (results / "truth.json").rename(truth)
    flags = [
        "--results_dir",
        str(results),
        "--output_dir_scoring",
        str(tmp_path / "scores"),
        "--verbose",
        "False",
    ]
    assert _run(*flags).exit_code == 1
    result = _run(*flags, "--debug_mode=0", f"--truth={truth}")
    assert (result.exit_code, result.output) == (0, "")


def test_expected_errors_exit_with_1_and_a_fix(make_run: MakeRun, tmp_path: Path) -> None:
    result = _run(f"--results_dir={tmp_path / 'absent'}")
    assert result.exit_code == 1
    assert "is not a folder" in result.stderr
    result = _run(f"--results_dir={make_run(**{'truth.json': None})}")
    assert result.exit_code == 1
    assert "--truth" in result.stderr
    assert "--input_data_dir" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "flag", ["--seed=x", "--seed=-1", "--verbose=maybe", "--unknown=1", "--test_tasks_per_dataset=0"]
)
def test_bad_arguments_exit_with_2(flag: str) -> None:
    assert _run(flag).exit_code == 2


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scoring", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "--output-dir-scoring" in done.stdout


@pytest.mark.medium
def test_a_user_without_a_folder_for_settings_of_plots_is_not_bothered(
    make_run: MakeRun, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "scoring", "--results_dir", str(make_run())]
    done = subprocess.run(
        [*command, "--output_dir_scoring", str(tmp_path / "scores")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"MPLCONFIGDIR": "/dev/null/none"},
    )
    assert done.stderr == ""
    assert list((tmp_path / "scores").rglob("*.png"))
