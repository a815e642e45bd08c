"""Predicted and actual times: shown where the submission tells them properly, never an obstacle."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from scoring import ScoringSettings, score
from scoring.run_info import read_run_info
from scoring.stage_times import StageTime

MakeRun = Callable[..., Path]

STAGES = [
    {"stage": "probe", "predicted_s": 4, "actual_s": 5.0, "note": "two networks"},
    {"stage": "search", "predicted_s": None, "actual_s": 30.0},
    {"stage": "save", "predicted_s": 0.0, "actual_s": 0.5},
    {"stage": "meta_test", "predicted_s": 1.6, "actual_s": None, "more": "left alone"},
]
MALFORMED = {
    "no JSON": "[",
    "deep": "[" * 50_000,
    "no list": '{"stage": "probe"}',
    "no object": "[3]",
    "a key is missing": '[{"stage": "probe", "predicted_s": 1}]',
    "text for seconds": '[{"stage": "probe", "predicted_s": "1", "actual_s": null}]',
    "negative": '[{"stage": "probe", "predicted_s": -1, "actual_s": null}]',
    "not a number": '[{"stage": "probe", "predicted_s": NaN, "actual_s": null}]',
    "infinite": '[{"stage": "probe", "predicted_s": 1e999, "actual_s": null}]',
    "a name without end": json.dumps([{"stage": "x" * 101, "predicted_s": 1, "actual_s": 1}]),
    "half a character": '[{"stage": "\\ud800", "predicted_s": 1, "actual_s": 1}]',
    "a note without end": json.dumps([{"stage": "x", "predicted_s": 1, "actual_s": 1, "note": "x" * 1001}]),
    "no text": b"\xff\xfe",
    "too many": json.dumps([{"stage": "x", "predicted_s": 1, "actual_s": 1}] * 101),
    "too large": b" " * 70_000 + b"[]",
}


class _Cells(HTMLParser):
    """The texts of a page, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.texts += [data.strip()] if data.strip() else []


def _page(results: Path) -> str:
    summary = score(ScoringSettings(results, results.parent / "scores", debug_mode=0))
    return summary.report.read_text(encoding="utf-8")


def test_the_report_sets_actual_against_predicted_times(make_run: MakeRun) -> None:
    cells = _Cells()
    cells.feed(_page(make_run(**{"stages.json": json.dumps(STAGES)})))
    start = cells.texts.index("Predicted and actual times") + 2
    assert cells.texts[start : start + 22] == [
        *("stage", "predicted s", "actual s", "ratio", "note"),
        *("probe", "4.00", "5.00", "1.25", "two networks"),
        *("search", "–", "30.00", "–"),
        *("save", "0.00", "0.50", "–"),
        *("meta_test", "1.60", "2.00", "1.25"),
    ]


def test_programs_get_the_same_numbers(make_run: MakeRun, tmp_path: Path) -> None:
    _page(make_run(**{"stages.json": json.dumps(STAGES)}))
    told = json.loads((tmp_path / "scores" / "details.json").read_text())["run"]["stage_times"]
    assert told[0] == STAGES[0] | {"began_s": None}
    expected = {"stage": "meta_test", "predicted_s": 1.6, "actual_s": 2.0, "note": "", "began_s": None}
    assert told[3] == expected


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [("Meta-test time: 0.0", None), ("Meta-test time: 7", 7), ("Meta-train time: 1", None), (None, None)],
)
def test_meta_test_takes_what_ingestion_measured(
    make_run: MakeRun, metadata: str | None, seconds: float | None
) -> None:
    claim = [{"stage": "meta_test", "predicted_s": 3.5, "actual_s": 0.1}]
    run = read_run_info(make_run(metadata_ingestion=metadata, **{"stages.json": json.dumps(claim)}))
    assert run.stage_times == (StageTime("meta_test", 3.5, seconds),)
    assert run.stage_times[0].ratio == (None if seconds is None else 2)


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_ignored_with_a_note(make_run: MakeRun, content: str | bytes) -> None:
    results = make_run(**{"stages.json": content})
    run = read_run_info(results)
    assert run.stage_times == ()
    assert len(run.notes) == 1
    assert run.notes[0].startswith("stages.json is ")
    assert "ignored" in run.notes[0]


@pytest.mark.medium
def test_the_page_of_a_run_with_a_malformed_file_has_the_note(make_run: MakeRun) -> None:
    page = _page(make_run(**{"stages.json": MALFORMED["negative"]}))
    assert "Predicted and actual times" not in page
    assert "stages.json is malformed" in page


def test_a_note_names_the_field_at_fault(make_run: MakeRun) -> None:
    rows = [STAGES[0], {"stage": "tune", "predicted_s": 1, "actual_s": "soon"}]
    (note,) = read_run_info(make_run(**{"stages.json": json.dumps(rows)})).notes
    assert note.startswith("stages.json is malformed: ignored (1.actual_s: ")


def test_a_link_is_not_followed(make_run: MakeRun, tmp_path: Path) -> None:
    results = make_run()
    (tmp_path / "elsewhere.json").write_text(json.dumps(STAGES))
    (results / "stages.json").symlink_to(tmp_path / "elsewhere.json")
    run = read_run_info(results)
    assert run.stage_times == ()
    assert run.notes == ("stages.json is a symbolic link: ignored",)


@pytest.mark.parametrize("content", [None, "[]"])
def test_without_stages_there_is_no_table_and_no_note(make_run: MakeRun, content: str | None) -> None:
    results = make_run(**{"stages.json": content})
    assert read_run_info(results).notes == ()
    assert "Predicted and actual times" not in _page(results)


@pytest.mark.medium
def test_names_of_stages_are_text(make_run: MakeRun) -> None:
    text = "<script>alert(1)</script>\n\x1b"
    rows = [{"stage": text, "predicted_s": 1e-300, "actual_s": 1e9, "note": text}]
    page = _page(make_run(**{"stages.json": json.dumps(rows)}))
    assert page.count("&lt;script&gt;") == 3  # in the timeline, and twice in the table
    assert page.count("<script>") == 1 and "<script>alert" not in page
    assert "\x1b" not in page
