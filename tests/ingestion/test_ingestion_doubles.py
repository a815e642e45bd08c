"""Doubles found by content, at little cost."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import odd_folders as folders
import pytest
from synthetic import write_meta_album

from ingestion import doubles
from ingestion.doubles import CHUNK, find_doubles, set_doubles_aside
from ingestion.labelled import read_labelled
from ingestion.sources import read_source


def test_only_files_of_equal_size_are_opened_and_only_likely_ones_read_in_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = doubles.WHOLE_BYTES + 10
    contents = [bytes([n]) * (size + (n < 3)) for n in range(6)] + [bytes([5]) * size]
    files = [folders.put(tmp_path, content, f"{n}") for n, content in enumerate(contents)]
    asked: dict[str, list[str]] = {"_some_content": [], "_whole_content": []}

    def listen(name: str) -> None:
        original = getattr(doubles, name)

        def listening(file: Path) -> object:
            asked[name].append(file.name)
            return original(file)

        monkeypatch.setattr(doubles, name, listening)

    for name in asked:
        listen(name)
    folders.put(tmp_path, b"alone", "alone")
    assert find_doubles([*files, tmp_path / "alone", tmp_path / "missing"]) == [[5, 6]]
    assert sorted(asked["_some_content"]) == ["0", "1", "2", "3", "4", "5", "6"]
    assert sorted(asked["_whole_content"]) == ["5", "6"]


def test_the_search_ends_where_it_becomes_too_late(tmp_path: Path) -> None:
    root = folders.fill(tmp_path / "set", "ab", 2)
    asked = itertools.count()
    source = set_doubles_aside(read_source(root), lambda: True)
    assert source.notes == ("not all images were compared to find doubles, for want of time",)
    assert len(source.datasets["set"].files) == 4
    assert find_doubles([root / "a" / "0.png"] * (2 * CHUNK), lambda: next(asked) > 3) is None


def test_doubles_of_a_metadl_root_are_noted_and_kept(tmp_path: Path) -> None:
    for name in "AB":
        write_meta_album(tmp_path / name, [3, 3])
    (tmp_path / "info").mkdir()
    (tmp_path / "info" / "meta_splits.txt").write_text(json.dumps({"meta-train": ["A"], "meta-test": ["B"]}))
    images = sorted((tmp_path / "B" / "images").iterdir())
    shutil.copy(images[0], images[1])
    shutil.copy(images[2], images[3])
    source = set_doubles_aside(read_source(tmp_path))
    assert len(source.datasets["B"].files) == 6
    assert [note.partition(",")[0] for note in source.notes] == [
        "B: 1 image is there twice or more in one class",
        "B: 1 image is in two classes or more",
    ]
    assert all("left as it is, since a splits file fixes the tasks" in note for note in source.notes)


def test_an_image_in_two_parts_of_a_split_is_left_out(tmp_path: Path) -> None:
    root = tmp_path / "set"
    folders.disjoint_parts(root)
    shutil.copy(root / "train" / "a" / "0.png", root / "test" / "f" / "copy.png")
    source = set_doubles_aside(read_source(root))
    assert [len(dataset.files) for dataset in source.datasets.values()] == [8, 6, 6]
    assert any("train/a/0.png = test/f/copy.png" in note for note in source.notes)


def test_a_folder_of_labelled_images_is_one_dataset(tmp_path: Path) -> None:
    root = tmp_path / "set"
    folders.disjoint_parts(root)
    whole = read_labelled(root)
    assert whole.class_names == tuple("abcdefg") and len(whole.files) == 21 and whole.name == "set"
    assert whole.notes == ("the classes of set-train, set-val, set-test are used together",)
    write_meta_album(tmp_path / "albums" / "A", [2, 2])
    assert read_labelled(tmp_path / "albums").class_names == ("class 0", "class 1")
    write_meta_album(tmp_path / "albums" / "B", [2, 2])
    with pytest.raises(doubles.InputError, match=r"holds 2 datasets \(A, B\); name one of them"):
        read_labelled(tmp_path / "albums")
