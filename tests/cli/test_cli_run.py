"""`autometa run` with a fake in the place of ingestion: what is printed where, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import run_local
from autometa.bundles.shipped import list_baselines
from autometa.cli.main import cli
from autometa.cli.run_setup import (
    MARK_FILE,
    check_backbones,
    claim_output,
    find_submission,
    give_up_output,
    names_ours,
)
from autometa.core.errors import ConfigError
from autometa.core.options import RunOptions
from autometa.core.progress import Progress
from autometa.planning.serving_limits import VARIABLES
from ingestion import Event, IngestionResult, IngestionSettings
from scoring import GroupScore, ScoreSummary, ScoringError, ScoringSettings
from scoring.summary import Estimate

LINE = "[autometa    3.2 s] probe: net 90 images/s"
EVENTS = (
    Event("stage", "meta-train"),
    Event("line", LINE),
    Event("line", f"[autometa    4.0 s] {Progress('search', 2, 0.613, 0.59, 0.63).line()}"),
    Event("note", "sandbox: none"),
    Event("stage", "meta-test", total=2),
    Event("progress", done=1, total=2),
    Event("failure", "task 2: ZeroDivisionError"),
)


class Ingestion:
    """Stands for `ingestion.run`."""

    def __init__(self) -> None:
        self.settings: IngestionSettings | None = None
        self.failures: dict[int, str] = {}
        self.error: BaseException | None = None

    def __call__(self, settings: IngestionSettings, on_event: Any, **_: Any) -> IngestionResult:
        self.settings = settings
        if self.error:
            raise self.error
        settings.output_dir.mkdir(parents=True)
        for event in EVENTS:
            on_event(event)
        return IngestionResult(settings.output_dir, 2, self.failures, seconds={"total": 12.0})


@pytest.fixture
def ingestion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ingestion:
    fake = Ingestion()

    def score(settings: ScoringSettings) -> ScoreSummary:
        metrics = {"normalized_accuracy": Estimate(0.5, 0.1, 2)}
        group = GroupScore("LETTERS", 0.5, 0.1, 2, 1, metrics)
        folder = settings.output_dir_scoring
        return ScoreSummary(group, (group,), 12.0, 60.0, ("a note",), folder, folder / "report.html")

    monkeypatch.setattr("autometa.cli.run.run_ingestion", fake)
    monkeypatch.setattr("autometa.cli.run.score", score)
    monkeypatch.setattr("autometa.cli.run.prepare_process", lambda: None)
    monkeypatch.chdir(tmp_path)
    return fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--output", "out", "--submission", "random"])


def test_a_run_shows_stages_notes_status_and_scores(ingestion: Ingestion) -> None:
    shown = run("run", "--time-budget", "60s", "--ways", "5", "--class-split", "split.json")
    assert shown.exit_code == 0, shown.output
    assert ingestion.settings is not None
    assert ingestion.settings.ways == (5, 5) and ingestion.settings.time_budget_s == 60
    assert ingestion.settings.class_split == Path("split.json")
    for part in (
        "meta-train",
        "sandbox: none",
        "best score 61.3 % (95 %: 59.0 to 63.0), 2 trials",
        "LETTERS",
        "50.0",
    ):
        assert part in shown.stdout
    assert "task 2: ZeroDivisionError" in shown.stdout
    assert str(Path("out/scoring/report.html")) in shown.stdout
    assert LINE not in shown.stdout and "\x1b" not in shown.output


def test_limits_of_the_learner_reach_the_submission_or_are_said_to_have_no_effect(
    ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, "of an earlier run")
    limits = ("--infer-limit", "30ms", "--max-model-size", "50MB")
    shown = run("run", *limits)
    assert shown.exit_code == 0, shown.output
    assert (os.environ["AUTOMETA_INFER_LIMIT"], os.environ["AUTOMETA_MAX_MODEL_SIZE"]) == ("30ms", "50000000")
    assert "AUTOMETA_ADAPT_LIMIT" not in os.environ
    line = "--infer-limit, --max-model-size: no effect on this submission"
    assert line in " ".join(shown.stdout.split())
    for name in ("autometa", "prototypical"):  # which says so itself
        shown = CliRunner().invoke(cli, ["run", *limits, "--output", name, "--submission", name])
        assert shown.exit_code == 0 and line not in " ".join(shown.stdout.split())
    shown = run("run", "--infer-limit", "0s")
    assert shown.exit_code == 2 and "infer_limit" in shown.stderr and shown.stderr.count("\n") == 1


def test_bundles_of_ours_are_known_by_their_code(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.py").write_text("import numpy")
    with zipfile.ZipFile(tmp_path / "ours.zip", "w") as archive:
        archive.writestr("model.py", "from autometa.submission import AutoMetaLearner")
    assert not names_ours(folder) and names_ours(tmp_path / "ours.zip") and names_ours(tmp_path / "missing")


@pytest.mark.parametrize("arguments", [("-v", "run"), ("run", "--verbose")])
def test_verbose_shows_every_line(ingestion: Ingestion, arguments: tuple[str, ...]) -> None:
    assert LINE in run(*arguments).stdout


@pytest.mark.parametrize("arguments", [("-q", "run"), ("run", "--quiet")])
def test_quiet_shows_scores_failures_and_the_report(ingestion: Ingestion, arguments: tuple[str, ...]) -> None:
    shown = run(*arguments).stdout
    assert "meta-train" not in shown and "sandbox" not in shown and "trials" not in shown
    assert "ZeroDivisionError" in shown and "LETTERS" in shown and "report.html" in shown


def test_json_is_all_that_stdout_gets(ingestion: Ingestion) -> None:
    ingestion.failures = {2: "ZeroDivisionError"}
    shown = run("run", "--json")
    assert shown.exit_code == 0
    content = json.loads(shown.stdout)
    assert content["overall"]["normalised_accuracy"] == 0.5 and content["overall"]["missing"] == 1
    assert content["succeeded"] is True and content["seconds"] == {"total": 12.0}
    assert content["report"] == str(Path("out/scoring/report.html"))
    assert "meta-train" in shown.stderr


def test_a_run_without_answers_ends_with_1_and_names_the_log(ingestion: Ingestion) -> None:
    ingestion.failures = {1: "gone", 2: "gone"}
    shown = run("run")
    assert shown.exit_code == 1
    assert "submission.log" in shown.stdout


def test_scores_that_cannot_be_made_end_with_1(ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: ScoringSettings) -> ScoreSummary:
        raise ScoringError("no truth")

    monkeypatch.setattr("autometa.cli.run.score", fail)
    shown = run("run")
    assert shown.exit_code == 1 and shown.stderr == "Error: scoring failed: no truth\n"


def test_an_interrupt_before_there_are_results_ends_with_130(ingestion: Ingestion) -> None:
    ingestion.error = KeyboardInterrupt()
    shown = run("run")
    assert shown.exit_code == 130 and shown.stderr == "Error: interrupted\n"


def test_bad_input_is_one_line_and_2(ingestion: Ingestion) -> None:
    shown = CliRunner().invoke(cli, ["run", "--submission", "nobody"])
    assert shown.exit_code == 2 and shown.stderr.count("\n") == 1
    assert "no baseline" in shown.stderr and "prototypical" in shown.stderr
    Path("out").mkdir()
    (Path("out") / MARK_FILE).touch()
    assert "add --overwrite or --resume" in run("run").stderr
    assert ingestion.settings is None
    assert run("run", "--overwrite").exit_code == 0


def test_the_dataset_may_stand_alone(ingestion: Ingestion, tmp_path: Path) -> None:
    shown = run("run", "photos")
    assert shown.exit_code == 0 and ingestion.settings is not None
    assert ingestion.settings.input_data_dir == Path("photos")
    twice = run("run", "photos", "--dataset", "others", "--overwrite")
    assert twice.exit_code == 2 and "`photos`" in twice.stderr and "give one" in twice.stderr


def test_run_local_is_the_same_command(ingestion: Ingestion) -> None:
    shown = CliRunner().invoke(run_local.main, ["--output", "out", "--submission", "random"])
    assert shown.exit_code == 0 and "LETTERS" in shown.stdout
    assert "prototypical" in list_baselines()


def test_backbones_without_weights_are_told_and_refused_where_there_is_no_other(tmp_path: Path) -> None:
    told: list[str] = []
    both = RunOptions(backbones="tf_efficientnet_lite0,resnet50.a1_in1k")
    check_backbones(both, find_submission("autometa"), told.append)
    assert len(told) == 1 and "resnet50.a1_in1k: its weights are not on this machine" in told[0]
    lacking = RunOptions(backbones="resnet50.a1_in1k")
    with pytest.raises(ConfigError, match=r"run: autometa backbones fetch resnet50\.a1_in1k, or name one"):
        check_backbones(lacking, find_submission("autometa"), told.append)
    check_backbones(lacking, find_submission("random"), told.append)
    bundle = tmp_path / "bundle"
    shutil.copytree(find_submission("autometa"), bundle)
    (bundle / "weights").mkdir()
    check_backbones(lacking, bundle, told.append)
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        archive.write(bundle / "model.py", "model.py")
        archive.writestr("weights/resnet50.a1_in1k.safetensors", b"")
    check_backbones(lacking, tmp_path / "bundle.zip", told.append)
    assert len(told) == 1


@pytest.mark.parametrize("was_there", [False, True])
def test_a_refused_run_leaves_what_was_there(tmp_path: Path, was_there: bool) -> None:
    folder = tmp_path / "out"
    if was_there:
        folder.mkdir()
    with claim_output(folder, overwrite=False):
        give_up_output(folder, was_there=was_there)
    assert folder.exists() == was_there and (not was_there or not list(folder.iterdir()))
