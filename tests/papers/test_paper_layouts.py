"""The datasets of papers are read from where they lie, at the pixels that a recipe asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autometa.core.errors import DataError
from autometa.data.episodes import EpisodeSpec
from autometa.papers.layouts import LAYOUTS, DataKind, read_omniglot
from autometa.papers.paper_data import copy_turned, load_data
from ingestion import InputError

COLOURS = [(200, 10, 10), (10, 200, 10), (10, 10, 200), (200, 200, 10), (10, 200, 200), (200, 10, 200)]


def write_image(file: Path, colour: tuple[int, int, int], size: tuple[int, int] = (12, 12)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file)


def write_classes(folder: Path, names: Sequence[str], images: int = 2) -> None:
    for name, colour in zip(names, COLOURS, strict=False):
        for number in range(images):
            write_image(folder / name / f"{number}.png", (colour[0], colour[1], colour[2] + number))


def write_omniglot(folder: Path, characters: int = 8) -> None:
    """Strokes of one bit: a black corner on white, longer in every character; its upper left stays black."""
    for part, alphabet in (("images_background", "Greek"), ("images_evaluation", "Tifinagh")):
        for number in range(characters):
            drawing = Image.new("1", (21, 21), 1)
            drawing.paste(0, (0, 0, 9, 3 + number))
            for copy in range(2):
                drawing.putpixel((20, 20 - copy), 0)
                file = folder / part / alphabet / f"character{number:02}" / f"{copy}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                drawing.save(file)


def test_omniglot_is_dark_with_light_strokes_and_has_four_classes_of_a_character(tmp_path: Path) -> None:
    write_omniglot(tmp_path)
    data = load_data("omniglot", tmp_path, 7)
    images, labels = data.pool.images, data.pool.labels
    assert images.shape == (4 * 32, 3, 7, 7) and data.pool.classes == 4 * 16
    assert (images[:32, :, 0, 0] > 200).all(), "strokes are light"
    assert (images[:32, :, 0, 5] < 50).all(), "paper is dark"
    for turn in (1, 2, 3):
        rows = slice(32 * turn, 32 * (turn + 1))
        assert np.array_equal(images[rows], np.rot90(images[:32], turn, (2, 3)))
        assert np.array_equal(labels[rows], labels[:32] + 16 * turn)


def test_turned_characters_stay_in_the_split_of_their_character(tmp_path: Path) -> None:
    write_omniglot(tmp_path)
    data = load_data("omniglot", tmp_path, 7)
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [4 * 11, 4 * 1, 4 * 4], "1100, 100 and 423 of 1623, of 16"
    characters = [set((part % 16).tolist()) for part in parts]
    assert not (
        characters[0] & characters[1] or characters[0] & characters[2] or characters[1] & characters[2]
    )
    again = load_data("omniglot", tmp_path, 7)
    assert np.array_equal(again.test, data.test)
    assert read_omniglot(tmp_path)[0].class_names[0] == "Greek/character00"


def write_mini(folder: Path) -> None:
    for part, names in (("train", ("n1", "n2")), ("val", ("n3",)), ("test", ("n4", "n5"))):
        rows = []
        for name in names:
            for number in range(2):
                file = f"{name}{number}.jpg"
                write_image(folder / "images" / file, COLOURS[int(name[1]) - 1], (30, 20))
                rows.append(f"{file},{name}")
        (folder / f"{part}.csv").write_text("\n".join(["filename,label", *rows]))


def test_mini_imagenet_has_the_split_of_its_tables(tmp_path: Path) -> None:
    write_mini(tmp_path)
    data = load_data("mini_imagenet", tmp_path, 10)
    assert data.pool.images.shape == (10, 3, 10, 10)
    assert (data.train.tolist(), data.validation.tolist(), data.test.tolist()) == ([0, 1], [2], [3, 4])
    shown = data.pool.images[data.pool.labels == 3].mean((0, 2, 3))
    assert np.abs(shown - np.array(COLOURS[3])).max() < 8, (
        "the images of a class are those that the table names"
    )


def test_other_sets_have_class_folders_in_their_parts(tmp_path: Path) -> None:
    for part, names in (("train", ["a", "b"]), ("val", ["c"]), ("test", ["d", "e"])):
        write_classes(tmp_path / part, names)
    for kind in ("tiered_imagenet", "cifar_fs"):
        data = load_data(kind, tmp_path, 8)
        assert (data.train.tolist(), data.validation.tolist(), data.test.tolist()) == ([0, 1], [2], [3, 4])
        assert data.pool.images.shape == (10, 3, 8, 8)


def test_cifar_fs_is_read_with_the_lists_that_it_is_published_with(tmp_path: Path) -> None:
    write_classes(tmp_path / "data", ["apple", "bear", "cat", "dog"])
    lists = tmp_path / "splits" / "bertinetto"
    lists.mkdir(parents=True)
    for part, names in (("train", "dog\napple\n"), ("val", "cat\n"), ("test", "bear\n")):
        (lists / f"{part}.txt").write_text(names)
    data = load_data("cifar_fs", tmp_path, 8)
    assert (data.train.tolist(), data.validation.tolist(), data.test.tolist()) == ([0, 3], [2], [1])
    (lists / "test.txt").write_text("bear\ncat\n")
    with pytest.raises(DataError, match="class `cat` is in two of train, val, test"):
        load_data("cifar_fs", tmp_path, 8)


def write_cub(folder: Path) -> None:
    images: list[str] = []
    labels, classes = [], []
    for place in range(5):
        name = f"{place + 1:03}.Bird"
        classes.append(f"{place + 1} {name}")
        for number in range(2):
            write_image(folder / "images" / name / f"b{number}.jpg", COLOURS[place])
            images.append(f"{len(images) + 1} {name}/b{number}.jpg")
            labels.append(f"{len(images)} {place + 1}")
    for file, lines in (("images", images), ("image_class_labels", labels), ("classes", classes)):
        (folder / f"{file}.txt").write_text("\n".join(lines) + "\n")


def test_cub_has_every_second_class_to_train_on(tmp_path: Path) -> None:
    write_cub(tmp_path / "CUB_200_2011")
    data = load_data("cub", tmp_path, 9)
    assert (data.train.tolist(), data.validation.tolist(), data.test.tolist()) == ([0, 2, 4], [1], [3])
    assert np.bincount(data.pool.labels).tolist() == [2] * 5


def split_file(folder: Path, **parts: list[str]) -> Path:
    file = folder / "split.json"
    file.write_text(json.dumps({f"meta-{name}": names for name, names in parts.items()}))
    return file


def test_class_folders_are_split_as_a_file_says(tmp_path: Path) -> None:
    write_classes(tmp_path / "own", ["a", "b", "c", "d"])
    split = split_file(tmp_path, train=["d", "a"], valid=["b"], test=["c"])
    data = load_data("classes", tmp_path / "own", 8, split=split)
    assert (data.train.tolist(), data.validation.tolist(), data.test.tolist()) == ([0, 3], [1], [2])


def test_a_file_takes_precedence_over_the_split_of_a_dataset(tmp_path: Path) -> None:
    write_cub(tmp_path)
    split = split_file(tmp_path, train=["005.Bird"], valid=["001.Bird"], test=["002.Bird"])
    data = load_data("cub", tmp_path, 9, split=split)
    assert (data.train.tolist(), data.validation.tolist(), data.test.tolist()) == ([4], [0], [1])


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_folder_that_is_none_ends_in_a_line_with_what_is_expected(kind: DataKind, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=f"is no {kind}, which is a folder with .*; name that folder"
    ) as caught:
        load_data(kind, tmp_path / "nothing", 8)
    assert "\n" not in str(caught.value)


def test_classes_without_a_split_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "own", ["a", "b"])
    for kind in ("classes", "cifar_fs"):
        with pytest.raises(DataError, match="which classes are for what; name a file with --split"):
            load_data(kind, tmp_path / "own", 8)
    split = split_file(tmp_path, train=["a"], test=["b"])
    with pytest.raises(DataError, match="no classes to validate on"):
        load_data("classes", tmp_path / "own", 8, split=split)


def test_a_split_with_classes_that_are_not_there_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "own", ["a", "b"])
    split = split_file(tmp_path, train=["a"], valid=["q"], test=["b"])
    with pytest.raises(InputError, match=r"--split \S+split.json: .*`q`"):
        load_data("classes", tmp_path / "own", 8, split=split)
    split.write_text("[1]")
    with pytest.raises(InputError, match=r"--split: \S+split.json: is no object"):
        load_data("classes", tmp_path / "own", 8, split=split)


@pytest.mark.parametrize(
    ("line", "message"),
    [("../x.jpg,n1", "filename `../x.jpg`"), ("n10.jpg,", "no label|with label ``")],
)
def test_a_wrong_line_of_a_table_is_named(line: str, message: str, tmp_path: Path) -> None:
    write_mini(tmp_path)
    with (tmp_path / "train.csv").open("a") as table:
        table.write(f"\n{line}\n")
    with pytest.raises((DataError, InputError), match=f"line 6.*{message}"):
        load_data("mini_imagenet", tmp_path, 8)


def test_a_class_in_two_parts_is_refused(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_classes(tmp_path / part, ["a", part])
    with pytest.raises(DataError, match="class `a` is in two of train, val, test"):
        load_data("tiered_imagenet", tmp_path, 8)


def test_a_wrong_line_of_cub_is_named(tmp_path: Path) -> None:
    write_cub(tmp_path)
    (tmp_path / "image_class_labels.txt").write_text("1 1\n2 1 7\n")
    with pytest.raises(DataError, match=r"image_class_labels\.txt, line 2: `2 1 7`"):
        load_data("cub", tmp_path, 8)
    (tmp_path / "image_class_labels.txt").write_text("1 1\n")
    with pytest.raises(DataError, match=r"image 2 has no class of classes\.txt"):
        load_data("cub", tmp_path, 8)


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    write_cub(tmp_path)
    (tmp_path / "images" / "001.Bird" / "b0.jpg").write_bytes(b"none")
    lines: list[str] = []
    data = load_data("cub", tmp_path, 8, report=lines.append)
    assert len(data.pool.images) == 9 and any("b0.jpg" in line for line in lines)


def test_too_few_images_for_the_episodes_are_told(tmp_path: Path) -> None:
    write_mini(tmp_path)
    data = load_data("mini_imagenet", tmp_path, 8)
    data.check_room("train", EpisodeSpec((2, 2), (1, 1), 1))
    with pytest.raises(
        DataError, match=r"validation: 1 of its 1 classes have 2 images, and episodes take 2 classes"
    ):
        data.check_room("validation", EpisodeSpec((2, 2), (1, 1), 1))
    with pytest.raises(DataError, match=r"test: 0 of its 2 classes have 16 images"):
        data.check_room("test", EpisodeSpec((2, 2), (1, 1), 15))


def test_images_that_are_turned_are_the_same_in_parts() -> None:
    images = np.random.default_rng(0).integers(256, size=(70, 3, 4, 4), dtype=np.uint8)
    made = copy_turned(images, 2, inverted=False)
    assert np.array_equal(made[:70], images) and np.array_equal(made[70:], np.rot90(images, 1, (2, 3)))
