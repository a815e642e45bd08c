"""The cache of decoded images: shared by runs, checked before use, trimmed to a size."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from synthetic import write_meta_album

from ingestion import image_cache
from ingestion.albums import read_meta_album
from ingestion.datasets import Dataset
from ingestion.image_cache import ImageCache
from ingestion.images import decode_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return read_meta_album(write_meta_album(tmp_path / "D", [3, 3]))


def other_dataset(folder: Path, name: str) -> Dataset:
    return read_meta_album(write_meta_album(folder / name, [4, len(name)]))


def test_images_that_were_changed_are_decoded_again(dataset: Dataset, tmp_path: Path) -> None:
    """A byte, the length, or the permission: what is used is what was decoded."""
    expected = np.array(decode_dataset(dataset, 16, tmp_path).images)
    for number, change in enumerate((change_a_byte, cut, empty)):
        decoded = decode_dataset(dataset, 16, tmp_path)
        assert np.array_equal(decoded.images, expected) and not decoded.note
        change(decoded.file)
        decoded = decode_dataset(dataset, 16, tmp_path)
        assert np.array_equal(decoded.images, expected), number
        assert "were changed, so they are decoded again" in decoded.note


def change_a_byte(file: Path) -> None:
    """And hide it: the time of modification is set back."""
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([byte[0] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def test_a_file_that_was_only_touched_is_read_once_and_trusted_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    digest = image_cache.file_digest

    def listening(file: Path) -> str:
        read.append(file)
        return digest(file)

    monkeypatch.setattr(image_cache, "file_digest", listening)
    file = decode_dataset(dataset, 16, tmp_path).file
    assert len(read) == 1
    decode_dataset(dataset, 16, tmp_path)
    assert len(read) == 1
    os.utime(file)
    for _ in range(2):
        assert not decode_dataset(dataset, 16, tmp_path, lambda done, total: pytest.fail("twice")).note
    assert len(read) == 2


def test_files_in_use_are_not_trimmed(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "CAP_BYTES", 1)
    used = decode_dataset(dataset, 16, tmp_path / "c")
    unused = decode_dataset(other_dataset(tmp_path, "E"), 16, tmp_path / "c").file
    third = decode_dataset(other_dataset(tmp_path, "FF"), 16, tmp_path / "c")
    assert used.file.exists() and third.file.exists()
    assert not unused.exists()
    assert not decode_dataset(dataset, 16, tmp_path / "c", lambda done, total: pytest.fail("twice")).note
    file = used.file
    del used
    ImageCache(tmp_path / "c" / "images").trim()
    assert not file.exists()
    assert third.file.exists()


def test_a_file_that_another_run_trims_in_between_is_written_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look whether it exists and its opening, and between its opening and its lock."""
    expected = np.array(decode_dataset(dataset, 16, tmp_path).images)
    lock = image_cache._lock
    trimmed: list[bool] = []

    def trim_then_lock(fd: int, kind: int) -> bool:
        if not trimmed:
            trimmed.append(True)
            for file in (tmp_path / "images").iterdir():
                file.unlink()
        return lock(fd, kind)

    monkeypatch.setattr(image_cache, "_lock", trim_then_lock)
    decoded = decode_dataset(dataset, 16, tmp_path)
    assert trimmed
    assert np.array_equal(decoded.images, expected)
    assert decoded.file.exists()


def test_what_a_killed_run_left_half_written_is_deleted(dataset: Dataset, tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "images")
    (tmp_path / "images" / "writing-left").mkdir(parents=True)
    (tmp_path / "images" / "writing-left" / "images.npy").write_bytes(b"half")
    with cache.writing() as folder:
        decode_dataset(dataset, 16, tmp_path)
        assert folder.exists()  # another run is still writing there
    assert sorted(p.suffix for p in (tmp_path / "images").iterdir()) == [".json", ".npy"]
