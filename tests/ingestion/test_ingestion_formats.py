"""Formats that a plug-in reads, folders that cannot be opened, and how much is said about them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import odd_folders as folders
import odd_images as images
import pytest
from folder_rows import Row, check
from PIL import Image

from ingestion import formats
from ingestion.formats import image_suffixes
from ingestion.sources import read_source, summarise


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pillow as it is where the plug-in for HEIC is not installed."""
    image_suffixes()
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    for known in (formats.image_suffixes, formats._register_plugins):
        known.cache_clear()
    yield
    for known in (formats.image_suffixes, formats._register_plugins):
        known.cache_clear()


@pytest.mark.usefixtures("without_heif")
def test_photos_that_a_plug_in_would_read_are_named_with_it(tmp_path: Path) -> None:
    root = tmp_path / "set"
    images.phone_photos(root)
    passed = "4 files passed over: 4 .heic (class a, c; pip install pillow-heif)"
    check(
        Row(images.phone_photos, "a b", 4, (passed, "classes without an image: c (2 .heic)")), root, tmp_path
    )


def test_photos_are_read_by_the_plug_in_where_it_is(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    image_suffixes()
    root = tmp_path / "set"
    images.phone_photos(root)
    check(Row(images.phone_photos, "a b c", 8), root, tmp_path)


def test_folders_that_cannot_be_opened_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders.fill(tmp_path / "set")
    scandir, stat = os.scandir, os.stat

    def refuse(path: str | Path) -> Any:
        if path == str(root / "b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    def refuse_status(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(f"{root / 'b'}/"):
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "stat", refuse_status)
    check(
        Row(folders.fill, "a c d", 9, ("cannot be opened, passed over: b (Permission denied)",)),
        root,
        tmp_path,
    )


@pytest.mark.medium
def test_notes_are_few_whatever_there_is(tmp_path: Path) -> None:
    root = folders.fill(tmp_path / "set", [f"class {number:03}" for number in range(300)], 1)
    for number in range(300):
        folders.put(root / f"class {number:03}", b"text", f"{number}.x{number}")
        folders.put(root / f"class {number:03}" / f".hidden {number}", b"text", "text")
        (root / f"empty {number}").mkdir()
        (root / f"class {number:03}" / "loop").symlink_to(root)
    notes = summarise(read_source(root).notes)
    assert len(notes) <= 12 and max(map(len, notes)) < 600


def test_files_are_not_touched_to_list_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk through twenty thousand files is a matter of listings."""
    root = folders.fill(tmp_path / "set", "ab", 20)
    asked: list[str] = []
    stat = os.stat

    def listening(path: Any, **options: Any) -> os.stat_result:
        asked.append(str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", listening)
    assert len(read_source(root).datasets["set"].files) == 40
    assert not [path for path in asked if path.endswith(".png")]
