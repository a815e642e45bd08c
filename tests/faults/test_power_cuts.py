"""What a power cut may lose: files that a run promises are flushed before they get their names, and folders after."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from disks import final_name, path_of
from small_runs import SmallRuns

from autometa.core import journals
from autometa.core.errors import UnwritableFile
from autometa.core.files import DESCRIPTION, save_tensors
from ingestion.outputs import write_atomically, write_predictions


class Recorder:
    """Flushes and renames, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str]] = []
        flush, rename = os.fsync, os.replace

        def flushing(opened: int) -> None:
            path = path_of(opened)
            self.events.append(("flush", "." if path.is_dir() else final_name(path)))
            flush(opened)

        def renaming(source: Any, target: Any, **named: Any) -> None:
            self.events.append(("rename", Path(target).name))
            rename(source, target, **named)

        monkeypatch.setattr(os, "fsync", flushing)
        monkeypatch.setattr(os, "replace", renaming)

    def of(self, name: str) -> list[tuple[str, str]]:
        """The events of a file, and those of its folder that follow at once."""
        places = [i for i, (_, about) in enumerate(self.events) if about == name]
        after = [i + 1 for i in places if self.events[i + 1 : i + 2] == [("flush", ".")]]
        return [self.events[i] for i in sorted({*places, *after})]


def promised(name: str) -> list[tuple[str, str]]:
    return [("flush", name), ("rename", name), ("flush", ".")]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def test_small_files_and_tensors_are_flushed_before_they_get_their_names(
    tmp_path: Path, recorder: Recorder
) -> None:
    journals.write_whole(tmp_path / "a.json", "{}")
    name = save_tensors(tmp_path, "weights", {"a": torch.ones(3)})
    write_atomically(tmp_path / "run.json", "{}")
    assert recorder.events == promised("a.json") + promised(name) + promised("run.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["a.json", name, "run.json"])


def test_what_a_later_run_can_do_without_is_not_waited_for(tmp_path: Path, recorder: Recorder) -> None:
    journals.write_whole(tmp_path / "stages.json", "[]", durable=False)
    journals.append(tmp_path / "journal.jsonl", {"stage": "probe"})
    write_predictions(tmp_path, 1, torch.ones(2, 2).numpy())
    assert ("flush", ".") not in recorder.events and len(recorder.events) == 2
    journals.append(tmp_path / "journal.jsonl", {"purchase": "view"}, durable=True)
    assert recorder.events[-1] == ("flush", "journal.jsonl")


@pytest.mark.medium
def test_a_learner_is_on_the_disk_before_the_file_that_makes_it_valid(
    tmp_path: Path, small_runs: SmallRuns, recorder: Recorder
) -> None:
    small_runs(tmp_path)
    tensors = {about for kind, about in recorder.events if about.endswith(".safetensors")}
    assert {name.partition("-")[0] for name in tensors} >= {"backbone", "metrics"}
    for name in tensors:
        assert recorder.of(name) == promised(name)
    described = recorder.of(DESCRIPTION)
    assert described == promised(DESCRIPTION) * (len(described) // 3) and len(described) >= 9
    last = max(i for i, event in enumerate(recorder.events) if event == ("rename", DESCRIPTION))
    assert all(recorder.events.index(("rename", name)) < last for name in tensors)
    assert not [
        event for event in recorder.events if event in (("flush", "stages.json"), ("flush", "choices.json"))
    ]


@pytest.mark.parametrize(
    ("number", "fails"),
    [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True), (errno.ENOSPC, True)],
)
def test_file_systems_that_cannot_flush_are_no_failure_and_broken_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fails: bool
) -> None:
    def failing(_: int) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "a.json").write_text("before")
    monkeypatch.setattr(os, "fsync", failing)
    for write in (journals.write_whole, write_atomically):
        if fails:
            with pytest.raises(OSError, match=os.strerror(number)):
                write(tmp_path / "a.json", "after")
            assert (tmp_path / "a.json").read_text() == "before"
        else:
            write(tmp_path / "a.json", "after")
            assert (tmp_path / "a.json").read_text() == "after"
            (tmp_path / "a.json").write_text("before")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_half_a_line_is_taken_back_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, write = tmp_path / "journal.jsonl", os.write
    journals.append(journal, {"number": 1})

    def half(opened: int, data: bytes) -> int:
        if len(data) < 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(opened, data[: len(data) // 2])

    with (
        monkeypatch.context() as patch,
        pytest.raises(UnwritableFile, match=r"journal\.jsonl: cannot be .*free"),
    ):
        patch.setattr(os, "write", half)
        journals.append(journal, {"number": 2})
    journals.append(journal, {"number": 3})
    assert journals.read(journal) == [{"number": 1}, {"number": 3}]
