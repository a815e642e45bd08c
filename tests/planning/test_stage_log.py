"""Predicted and actual seconds of stages, on a fake clock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic import FakeClock

from autometa.core import journals
from autometa.core.errors import BudgetExhausted
from autometa.planning.stage_log import JOURNAL, LONGEST_NOTE, MOST_STAGES, STAGES_FILE, StageLog, StageTime
from scoring.stage_times_file import parse_stages


def test_stages_are_written_when_they_end(tmp_path: Path) -> None:
    clock = FakeClock()
    stages = StageLog(tmp_path, clock)
    with stages.timed("bootstrap"):
        clock.now += 2
    stages.predict("meta_test", 7.5)
    with stages.timed("probe", 3.0):
        clock.now += 4
        stages.note("probe", "two networks")
        stages.note("probe", "one left out")
    told = [
        {"stage": "bootstrap", "predicted_s": None, "actual_s": 2.0, "note": "", "began_s": 0.0},
        {"stage": "meta_test", "predicted_s": 7.5, "actual_s": None, "note": "", "began_s": None},
        {
            "stage": "probe",
            "predicted_s": 3.0,
            "actual_s": 4.0,
            "note": "two networks; one left out",
            "began_s": 2.0,
        },
    ]
    assert json.loads((tmp_path / STAGES_FILE).read_text()) == told
    stages.write_line("meta_test")
    assert journals.read(tmp_path / JOURNAL) == [told[0], told[2], told[1]]
    assert {file.name for file in tmp_path.iterdir()} == {STAGES_FILE, JOURNAL}


def test_a_note_does_not_grow_without_end() -> None:
    stages = StageLog(None)
    for _ in range(100):
        stages.note("search", "a long story")
    assert len(stages.times[0].note) == LONGEST_NOTE


def test_a_stage_inside_another_one_counts_for_itself() -> None:
    clock = FakeClock()
    stages = StageLog(None, clock)
    with stages.timed("search", 20.0):
        clock.now += 1
        with stages.timed("rank", 4.0):
            clock.now += 3
        with stages.timed("tune"):
            clock.now += 5
        clock.now += 1
    assert stages.times == [
        StageTime(stage="search", predicted_s=16.0, actual_s=2.0, began_s=0.0),
        StageTime(stage="rank", predicted_s=4.0, actual_s=3.0, began_s=1.0),
        StageTime(stage="tune", actual_s=5.0, began_s=4.0),
    ]


def test_a_stage_that_comes_again_adds_up_and_one_that_fails_counts() -> None:
    clock = FakeClock()
    stages = StageLog(None, clock)
    for _ in range(2):
        with pytest.raises(BudgetExhausted), stages.timed("tune", 6.0):
            clock.now += 5
            raise BudgetExhausted("late")
    assert stages.times == [StageTime(stage="tune", predicted_s=12.0, actual_s=10.0, began_s=0.0)]
    with stages.timed("save", -3.0):
        pass
    assert stages.times[-1] == StageTime(stage="save", predicted_s=0.0, actual_s=0.0, began_s=10.0)


def test_the_file_holds_no_more_stages_than_its_format(tmp_path: Path) -> None:
    stages = StageLog(tmp_path, FakeClock())
    for number in range(MOST_STAGES + 20):
        with stages.timed(f"stage {number}", 1.0):
            pass
    rows = parse_stages((tmp_path / STAGES_FILE).read_bytes())
    assert len(rows) == MOST_STAGES and rows[0].stage == "stage 0"
    assert (rows[-1].stage, rows[-1].note, rows[-1].predicted_s) == ("further stages", "21 of them", 21.0)
    assert len(stages.times) == MOST_STAGES + 20
