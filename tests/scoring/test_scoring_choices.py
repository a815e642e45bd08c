"""What a submission says it has chosen: shown as text where it has the right form, never an obstacle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scoring import ScoringSettings, score
from scoring.choices import read_choices

MakeRun = Callable[..., Path]
EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\x1b\n"


def _page(results: Path, **settings: Any) -> str:
    summary = score(ScoringSettings(results, results.parent / "scores", debug_mode=0, **settings))
    return summary.report.read_text(encoding="utf-8")


@pytest.mark.medium
def test_the_page_shows_what_was_chosen_and_tried(make_run: MakeRun, choices_content: dict[str, Any]) -> None:
    info = {"stages": [{"name": "prepare", "seconds": 2}, {"name": "meta_train", "seconds": 8}]}
    files = {"choices.json": json.dumps(choices_content), "ingestion.json": json.dumps(info)}
    page = _page(make_run(**files))
    for words in (
        "The learner joins two views. Time went to what",
        "Score against time",
        "Members and weights",
        "75 %",
        "trained here",
        "What was tried",
        "\N{MINUS SIGN}1.0",
        "± 1.0",
        "MemoryError",
        "1.30 GB",
    ):
        assert words in page, words


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no object": lambda content: [content],
    "another format": lambda content: content | {"format": "autometa-choices-2"},
    "no list": lambda content: content | {"members": {"a": 1}},
    "a row of text": lambda content: content | {"trials": ["a"]},
    "a weight of text": lambda content: content | {"members": [{"name": "a", "kind": "view", "weight": "1"}]},
    "a large weight": lambda content: content | {"members": [{"name": "a", "kind": "view", "weight": 1e9}]},
    "another kind": lambda content: content | {"members": [{"name": "a", "kind": "x", "weight": 0.5}]},
    "not a number": lambda content: content | {"served": [{"seconds": float("nan"), "stage": "a"}]},
    "infinite": lambda content: content | {"served": [{"seconds": float("inf"), "stage": "a"}]},
    "before the start": lambda content: content | {"served": [{"seconds": -1, "stage": "a"}]},
    "no name": lambda content: content | {"served": [{"seconds": 1, "stage": ""}]},
    "long text": lambda content: content | {"what": "x" * 1001},
    "many rows": lambda content: content | {"served": [{"seconds": 1, "stage": "a"}] * 501},
    "a whole number as a truth": lambda content: content | {"meta_test_bytes": True},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_malformed_file_is_ignored_with_a_note(
    make_run: MakeRun, choices_content: dict[str, Any], change: Callable[[dict[str, Any]], object]
) -> None:
    results = make_run(**{"choices.json": json.dumps(change(choices_content))})
    choices, (note,) = read_choices(results, None)
    assert choices is None and note.startswith("choices.json is malformed: ignored (")


@pytest.mark.medium
def test_the_page_of_a_run_with_a_malformed_file_has_the_note(
    make_run: MakeRun, choices_content: dict[str, Any]
) -> None:
    page = _page(make_run(**{"choices.json": json.dumps([choices_content])}))
    assert "What was tried" not in page and "choices.json is malformed" in page


@pytest.mark.parametrize("content", ["[" * 50_000, "{", b"\xff\xfe", " " * 300_000 + "{}"])
def test_no_json_and_too_much_is_ignored_too(make_run: MakeRun, content: str | bytes) -> None:
    choices, (note,) = read_choices(make_run(**{"choices.json": content}), None)
    assert choices is None and note.startswith("choices.json is ") and len(note) < 400


def test_a_link_is_not_followed(make_run: MakeRun, tmp_path: Path, choices_content: dict[str, Any]) -> None:
    results = make_run()
    (tmp_path / "elsewhere.json").write_text(json.dumps(choices_content))
    (results / "choices.json").symlink_to(tmp_path / "elsewhere.json")
    assert read_choices(results, None) == (None, ["choices.json is a symbolic link: ignored"])


def test_every_text_is_text(make_run: MakeRun, choices_content: dict[str, Any]) -> None:
    choices_content |= {"what": EVIL, "why": EVIL}
    for row in choices_content["members"]:
        row["name"] = EVIL
    for row in choices_content["trials"]:
        row |= {"name": EVIL, "kind": EVIL, "note": EVIL}
    for row in choices_content["served"]:
        row["stage"] = EVIL
    page = _page(make_run(**{"choices.json": json.dumps(choices_content)}))
    assert page.count("&lt;script&gt;alert") > 12
    assert "<script>alert" not in page and "<img" not in page and "\x1b" not in page


def test_extreme_numbers_are_drawn(make_run: MakeRun, choices_content: dict[str, Any]) -> None:
    choices_content["served"] = [
        {"seconds": 0, "stage": "a", "accuracy": -10, "low": 10, "high": -10},
        {"seconds": 1e9, "stage": "b", "accuracy": 10, "low": -10, "high": 10},
    ]
    page = _page(make_run(**{"choices.json": json.dumps(choices_content)}))
    assert "Score against time" in page
    assert 'height="-' not in page and 'width="-' not in page and "nan" not in page


def test_private_names_are_replaced(make_run: MakeRun, choices_content: dict[str, Any]) -> None:
    choices_content["what"] = "B10 is hard."
    choices_content["trials"][0]["note"] = "B2 broke"
    page = _page(make_run(**{"choices.json": json.dumps(choices_content)}), private_information=True)
    assert "Dataset 2 is hard." in page and "Dataset 1 broke" in page
