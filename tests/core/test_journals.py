"""Journals and small files: several threads, failures of any kind, and records as they are read."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from autometa.core import journals


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt(), ValueError("no JSON")])
def test_whatever_fails_leaves_the_old_file_and_no_half_one(tmp_path: Path, error: BaseException) -> None:
    file = tmp_path / "a.json"
    journals.write_whole(file, "old")
    with pytest.raises((OSError, KeyboardInterrupt, ValueError)), journals.replacing(file) as partial:
        partial.write_text("half")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"] and file.read_text() == "old"


def test_two_threads_write_one_file_under_names_of_their_own(tmp_path: Path) -> None:
    file, both, names = tmp_path / "a.json", threading.Barrier(2), set[str]()

    def write(text: str) -> None:
        with journals.replacing(file, durable=False) as partial:
            names.add(partial.name)
            partial.write_text(text)
            both.wait(timeout=30)
            assert partial.read_text() == text

    threads = [threading.Thread(target=write, args=(text,)) for text in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 2 and file.read_text() in {"one", "other"}
    assert all(name.startswith(".a.json.") and name.rpartition(".")[2].isdigit() for name in names)


def test_half_files_of_killed_runs_go(tmp_path: Path) -> None:
    with journals.replacing(tmp_path / "a.json", durable=False) as partial:
        partial.write_text("whole")
        left = partial.with_name(partial.name)
    left.write_text("half")
    journals.tidy_folder(tmp_path, "journal.jsonl", pytest.fail)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_numbers_as_keys_are_read_as_text(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    record = {"by_shots": {number: number / 2 for number in (1, 5, 10, 20)}}
    journals.append(file, record)
    assert journals.read(file) == [{"by_shots": {"1": 0.5, "5": 2.5, "10": 5.0, "20": 10.0}}]
    assert journals.damaged_inside(file) is None and journals.cut_damaged_end(file) == 0
