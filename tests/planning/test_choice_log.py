"""What a run has chosen is on disk as soon as it is known, and stays small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autometa.planning.choice_log import (
    CHOICES_FILE,
    LONGEST_TEXT,
    MOST_ROWS,
    ChoiceLog,
    Choices,
    Member,
    Served,
    Trial,
)

TRIAL = Trial(name="b@32", kind="view", predicted_s=2.0, actual_s=1.5, expected_gain=0.01)
MEMBER = Member(name="a@32", kind="view", weight=1.0)


def test_each_line_is_on_disk_at_once(tmp_path: Path) -> None:
    log, file = ChoiceLog(tmp_path), tmp_path / CHOICES_FILE
    log.explain("One view.", "There was no time for more.")
    assert Choices.model_validate_json(file.read_text()).why == "There was no time for more."
    log.add_served(Served(seconds=3.0, stage="bootstrap"), [MEMBER], 10**9)
    log.add_trial(TRIAL)
    assert Choices.model_validate_json(file.read_text()) == log.choices
    content = json.loads(file.read_text())
    assert content["format"] == "autometa-choices-1"
    assert content["meta_test_bytes"] == 10**9
    assert content["trials"][0]["outcome"] == "kept"
    assert [path.name for path in tmp_path.iterdir()] == [CHOICES_FILE]


def test_lists_and_texts_do_not_grow_without_end() -> None:
    log = ChoiceLog(None)
    log.explain("x" * 10_000, "y")
    for second in range(MOST_ROWS + 10):
        log.add_trial(TRIAL.model_copy(update={"note": "z" * 10_000}))
        log.add_served(Served(seconds=second, stage="search"), [MEMBER] * 500)
    choices = log.choices
    assert len(choices.what) == len(choices.trials[-1].note) == LONGEST_TEXT
    assert len(choices.trials) == len(choices.served) == len(choices.members) == MOST_ROWS
    assert choices.served[-1].seconds == MOST_ROWS + 9


def test_a_run_that_goes_on_keeps_the_members(tmp_path: Path) -> None:
    earlier = ChoiceLog(tmp_path)
    earlier.add_trial(TRIAL)
    earlier.add_served(Served(seconds=3.0, stage="final"), [MEMBER], 10**9)
    log = ChoiceLog(tmp_path)
    log.resume("The one of before.", "Nothing is better.")
    told = Choices.model_validate_json((tmp_path / CHOICES_FILE).read_text())
    assert (told.members, told.meta_test_bytes, told.what) == ([MEMBER], 10**9, "The one of before.")
    assert told.trials == [] and told.served == []


@pytest.mark.parametrize("content", [None, b"{", b"\xff", b'{"format": "autometa-choices-9"}'])
def test_without_a_file_that_can_be_read_members_are_not_known(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / CHOICES_FILE).write_bytes(content)
    log = ChoiceLog(tmp_path)
    log.resume("The one of before.", "Nothing is better.")
    assert Choices.model_validate_json((tmp_path / CHOICES_FILE).read_text()).members == []
