"""What a submission may keep on disk, and a disk that is full."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from ingestion_runs import TASKS, Runner
from synthetic import MakeBundle

from ingestion import disk, meta_test
from ingestion.disk import DiskMeter
from ingestion.errors import InputError
from ingestion.meta_train import has_learner
from ingestion.outputs import Reserve, write_atomically, write_predictions

KILO = 1000


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    found = tmp_path / "model", tmp_path / "scratch"
    for folder in found:
        folder.mkdir()
    return found


def test_bytes_and_files_of_all_folders_count(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "MAX_BYTES", 100 * KILO)
    monkeypatch.setattr(disk, "MAX_FILES", 20)
    meter = DiskMeter(folders, {})
    for folder in folders:
        (folder / "part").mkdir()
        (folder / "part" / "tensor").write_bytes(bytes(40 * KILO))
    (folders[0] / "link").symlink_to("/usr")
    assert meter.excess([]) == ""
    (folders[1] / "more").write_bytes(bytes(30 * KILO))
    assert "more than 0.00 GB, the most" in meter.excess([])
    (folders[1] / "more").unlink()
    for number in range(20):
        (folders[1] / str(number)).touch()
    assert "more than 20 files" in meter.excess([])


def test_a_folder_that_becomes_a_link_while_it_is_looked_at_is_not_followed(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "MAX_FILES", 20)
    meter, swapped = DiskMeter(folders, {}), folders[1] / "swapped"
    (tmp_path / "others").mkdir()
    for number in range(30):
        (tmp_path / "others" / str(number)).touch()
    read, seen = disk._read_folder, list[str]()

    def read_then_swap(path: str) -> Any:
        seen.append(path)
        found = read(path)
        if path == str(folders[1]):
            swapped.rmdir()
            swapped.symlink_to(tmp_path / "others")
        return found

    swapped.mkdir()
    monkeypatch.setattr(disk, "_read_folder", read_then_swap)
    assert meter.excess([]) == "" and seen[-1] == str(swapped)


def test_files_without_a_name_count_but_for_what_was_handed_over(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: this one may hold such files of tests before it."""
    monkeypatch.setattr(disk, "MAX_BYTES", 100 * KILO)
    with tempfile.TemporaryFile(dir=folders[1]) as file, holder_of(file) as pid:
        file.write(bytes(150 * KILO))
        file.flush()
        status = os.fstat(file.fileno())
        given = {(status.st_dev, status.st_ino): status.st_blocks * 512}
        assert DiskMeter(folders, {}).excess([pid])
        assert not DiskMeter(folders, given).excess([pid])
        file.write(bytes(150 * KILO))
        file.flush()
        assert DiskMeter(folders, given).excess([pid])  # it has grown


@contextmanager
def holder_of(file: IO[bytes]) -> Iterator[int]:
    """The process id of a program that holds this file open, and none other."""
    process = subprocess.Popen(["sleep", "600"], stdin=file)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_half_of_the_free_space_is_left_to_others(folders: tuple[Path, Path]) -> None:
    free = disk.shutil.disk_usage(folders[0]).free
    assert DiskMeter(folders, {}).max_bytes <= min(disk.MAX_BYTES, 0.6 * free)


def test_folders_that_are_too_deep_are_refused_and_deleted(folders: tuple[Path, Path]) -> None:
    """Deeper than a path can be long, and than Python can recurse."""
    meter = DiskMeter(folders, {})
    at = os.open(folders[1], os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deeper", dir_fd=at)
        below = os.open("deeper", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    assert "deep, the most" in meter.excess([])
    assert not has_learner(folders[1])
    with pytest.raises(InputError, match="--overwrite"):
        DiskMeter(folders, {})
    disk.clear(folders[1])
    assert not list(folders[1].iterdir())


@pytest.mark.medium
def test_a_submission_that_fills_its_folders_loses_that_task(
    runner: Runner, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its scratch folder, which is cleared; in the model folder, nothing is deleted and every task is lost."""
    monkeypatch.setattr(disk, "MAX_FILES", 200)
    fill = """
        flag = Path(os.environ["METADL_MODEL_DIR"]) / "filled"
        if not flag.exists():
            flag.touch()
            for number in range(500): Path(f"file-{number}").touch()
            time.sleep(60)
        return self.nearest(query_set)
    """
    result = runner(make_bundle(predict=fill))
    assert list(result.failures) == [1]
    assert "its folders (model, logs, scratch) hold more than 200 files, the most" in result.failures[1]
    assert runner.accuracy(2) > 0.7


@pytest.mark.medium
def test_a_full_disk_costs_the_prediction_that_could_not_be_written(
    runner: Runner, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(folder: Path, task: int, predictions: Any) -> None:
        if task == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_predictions(folder, task, predictions)

    monkeypatch.setattr(meta_test, "write_predictions", write)
    result = runner(make_bundle())
    assert list(result.failures) == [2]
    assert "cannot be written (No space left on device)" in result.failures[2]
    assert np.isnan(runner.accuracy(2))
    assert all(runner.accuracy(task) > 0.7 for task in range(1, TASKS + 1) if task != 2)
    assert not (runner.output / ".reserve").exists()


def test_a_file_that_cannot_be_written_whole_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="full"):
        write_atomically(tmp_path / "truth.json", "[]")
    assert not list(tmp_path.iterdir())


def test_room_for_the_results_is_reserved_until_it_is_needed(tmp_path: Path) -> None:
    with Reserve.in_folder(tmp_path, []) as reserve:
        assert (tmp_path / ".reserve").stat().st_blocks * 512 >= 2**20
        reserve.release()
        assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="no room for the results"), Reserve.in_folder(tmp_path / "gone", []):
        pytest.fail("it began")
