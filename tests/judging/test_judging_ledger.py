"""The ledger of a judging: whole lines, whatever happens to the program or the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from made_up_runs import IDENTITY, made_up, opened, units

from autometa.core.errors import ConfigError
from autometa.judging.ledger import Ledger, LedgerFull

UNITS = units("good", "bad")


def test_rows_are_read_as_they_were_kept_and_later_ones_replace_earlier_ones(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "runs.jsonl")
    rows = [made_up(unit) for unit in UNITS]
    for row in rows:
        ledger.add(row)
    again = rows[0].model_copy(update={"wall_s": 99.0})
    ledger.add(again)
    assert list(opened(ledger.file).rows().values()) == [*rows[1:], again]
    assert ledger.identity() == IDENTITY


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_line_that_a_kill_has_left_half_written_is_cut_off(tmp_path: Path, cut: int) -> None:
    ledger = opened(tmp_path / "runs.jsonl")
    for unit in UNITS[:2]:
        ledger.add(made_up(unit))
    content = ledger.file.read_bytes()
    ledger.file.write_bytes(content[:-cut])
    resumed = opened(ledger.file)
    assert list(resumed.rows()) == [UNITS[0].key] and resumed.cut_bytes > 0
    resumed.add(made_up(UNITS[1]))
    assert ledger.file.read_bytes() == content


def test_a_first_line_that_is_half_written_is_written_again(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "runs.jsonl")
    whole = ledger.file.read_bytes()
    ledger.file.write_bytes(whole[:10])
    assert opened(ledger.file).rows() == {} and ledger.file.read_bytes() == whole


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = opened(tmp_path / "runs.jsonl")
    ledger.add(made_up(UNITS[0]))
    before = ledger.file.read_bytes()

    write, free = os.write, [20]

    def fill(opened: int, content: bytes) -> int:
        if not free:
            raise OSError(28, "No space left on device")
        return write(opened, content[: free.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fill)
        with pytest.raises(LedgerFull, match=r"No space left on device.*--resume"):
            ledger.add(made_up(UNITS[1]))
    assert ledger.file.read_bytes() == before


def test_another_judging_and_a_strange_line_are_named(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "runs.jsonl")
    other = IDENTITY.model_copy(update={"options": {"time_budget": "60s"}})
    with pytest.raises(ConfigError, match="time-budget 30s, not 60s"):
        Ledger(ledger.file).open(other)
    with ledger.file.open("a") as stream:
        stream.write('{"submission": "x"}\n')
    with pytest.raises(ConfigError, match="line 2: damaged"):
        ledger.rows()


def test_an_option_that_is_left_out_later_is_another_judging(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    opened(file).add(made_up(UNITS[0]))
    asked = IDENTITY.model_copy(update={"options": {**IDENTITY.options, "query_per_class": "5"}})
    with pytest.raises(ConfigError, match="has query-per-class None, not 5"):
        Ledger(file).open(asked)
    file.unlink()
    Ledger(file).open(asked)
    with pytest.raises(ConfigError, match="has query-per-class 5, not None"):
        opened(file)


def test_a_dataset_with_other_files_is_another_judging(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    Ledger(file).open(IDENTITY.model_copy(update={"files": "digest"}))
    Ledger(file).open(IDENTITY)  # as of an earlier version
    with pytest.raises(ConfigError, match="the files of photos are others"):
        Ledger(file).open(IDENTITY.model_copy(update={"files": "another"}))


def test_damage_before_runs_that_are_done_is_named_and_nothing_is_cut(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "runs.jsonl")
    for unit in UNITS:
        ledger.add(made_up(unit))
    lines = ledger.file.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:2], lines[2].replace(b"0.", b"1."), *lines[3:]])
    ledger.file.write_bytes(damaged)
    with pytest.raises(
        ConfigError, match=r"runs.jsonl, line 3: damaged, or of another version; delete the line"
    ):
        opened(ledger.file)
    assert ledger.file.read_bytes() == damaged
    ledger.file.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert len(opened(ledger.file).rows()) == len(UNITS) - 1


def test_a_damaged_first_line_is_not_to_be_deleted(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "runs.jsonl")
    for unit in UNITS:
        ledger.add(made_up(unit))
    first, *lines = ledger.file.read_bytes().splitlines(keepends=True)
    for damaged in ([first.replace(b"photos", b"Photos"), *lines], lines):
        ledger.file.write_bytes(b"".join(damaged))
        with pytest.raises(
            ConfigError, match=r"line 1: damaged, or of another version; restore it"
        ) as caught:
            opened(ledger.file)
        assert "delete" not in str(caught.value)
