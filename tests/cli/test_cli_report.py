"""`autometa report`: a run is scored again."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from autometa.cli.main import cli
from autometa.cli.program import BadInput
from autometa.cli.report import score_again
from autometa.cli.run_setup import claim_output, is_in_use

LABELS = [0, 1, 0, 1]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The output folder of a run of two tasks, one of which was not answered."""
    folder = tmp_path / "out"
    results = folder / "ingestion"
    results.mkdir(parents=True)
    tasks = [{"task": n, "dataset": "ONE", "ways": 2, "shots": 1, "labels": LABELS} for n in (1, 2)]
    truth = {"format": "autometa-truth-1", "seed": 93, "datasets": ["ONE"], "tasks": tasks}
    (results / "truth.json").write_text(json.dumps(truth))
    np.savetxt(results / "task_1.predict", np.eye(2)[LABELS])
    (results / "metadata_ingestion").write_text(
        "Total execution time: 12.5\nMeta-train time: 1.0\nMeta-test time: 2.0\n"
    )
    return folder


def report(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


@pytest.mark.medium
def test_the_report_is_made_and_its_path_printed(run: Path) -> None:
    shown = report(run)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == f"{run / 'scoring' / 'report.html'}\n"
    assert "ONE" in shown.stderr
    assert (run / "scoring" / "report.html").stat().st_size > 1000
    assert json.loads((run / "scoring" / "scores.json").read_text())["tasks_missing"] == 1


@pytest.mark.medium
def test_it_is_made_anew_each_time(run: Path) -> None:
    assert report(run, "-q").exit_code == 0
    np.savetxt(run / "ingestion" / "task_2.predict", np.eye(2)[LABELS])
    shown = report(run, "--json")
    content = json.loads(shown.stdout)
    assert content["overall"]["normalised_accuracy"] == 1.0 and content["overall"]["missing"] == 0
    assert sorted(path.name for path in run.iterdir()) == ["ingestion", "scoring"]
    (run / "scoring" / "scores.txt").unlink()  # as a kill may leave it
    assert report(run).exit_code == 0
    assert sorted(path.name for path in run.iterdir()) == ["ingestion", "scoring"]


@pytest.mark.medium
def test_it_is_copied_and_opened(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_page(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", open_page)
    page = tmp_path / "new" / "page.html"
    shown = report(run, "--output", page, "--open")
    assert shown.exit_code == 0 and shown.stdout == f"{page}\n"
    assert page.read_bytes() == (run / "scoring" / "report.html").read_bytes()
    assert opened == [page.as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    shown = report(run, "--open")
    assert shown.exit_code == 1 and "no browser" in shown.stderr


@pytest.mark.medium
def test_what_cannot_be_scored_ends_with_2_and_one_line(run: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ([tmp_path], "give the --output of a run"),
        ([run, "--output", tmp_path], "cannot be written"),
    ):
        shown = report(*arguments)
        assert shown.exit_code == 2 and said in shown.stderr.splitlines()[-1]
    before = (run / "scoring" / "report.html").read_bytes()
    (run / "ingestion" / "truth.json").unlink()
    shown = report(run)
    assert shown.exit_code == 2 and shown.stderr.count("\n") == 1 and "truth.json" in shown.stderr
    assert (run / "scoring" / "report.html").read_bytes() == before


def test_a_folder_that_is_no_run_keeps_its_files(tmp_path: Path) -> None:
    for name in ("ingestion", "scoring"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text("mine")
    with pytest.raises(BadInput, match=r"holds no truth\.json"):
        score_again(tmp_path)
    assert (tmp_path / "scoring" / "mine.py").exists()


def test_a_run_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert not is_in_use(folder)
    with claim_output(folder, overwrite=False):
        (folder / "ingestion").mkdir()
        shown = report(folder)
        assert shown.exit_code == 2 and "wait until it has ended" in shown.stderr
    assert not is_in_use(folder)
