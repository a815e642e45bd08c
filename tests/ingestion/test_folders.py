"""Any folder of images that a person has: what is read, what is said about it, or the one line that refuses it.

A row of the table: how the folder is made, and what becomes of it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features
from synthetic import class_image

from ingestion.doubles import set_doubles_aside
from ingestion.errors import InputError
from ingestion.images import decode_dataset
from ingestion.sources import Source, read_source, summarise
from ingestion.survey import choose_preparations

PX = 16
Pixels = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Outcome:
    """What a folder became: its classes, with a slash before them the dataset where there are several."""

    source: Source
    classes: tuple[str, ...]
    images: Pixels
    notes: tuple[str, ...]
    broken: tuple[str, ...]


def outcome_of(folder: Path, scratch: Path) -> Outcome:
    """Everything that a run does with a folder up to its images."""
    source = choose_preparations(set_doubles_aside(read_source(folder)), PX)
    decoded = {
        name: decode_dataset(dataset, source.preparation(name, PX), scratch / "cache")
        for name, dataset in source.datasets.items()
    }
    classes = [
        name if len(decoded) == 1 else f"{dataset}/{name}"
        for dataset, each in decoded.items()
        for name in each.dataset.class_names
    ]
    flat = [f"flat: {file.name}" for each in decoded.values() for file in each.flat]
    return Outcome(
        source,
        tuple(classes),
        np.concatenate([each.images for each in decoded.values()]),
        (*summarise(source.notes), *flat),
        tuple(line for each in decoded.values() for line in each.broken),
    )


def put(folder: Path, image: Image.Image | bytes, name: str, **options: Any) -> Path:
    """An image, or any bytes, as a file in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        (folder / name).write_bytes(image)
    else:
        image.save(folder / name, **options)
    return folder / name


def fill(
    root: Path, classes: Iterable[str] = "abcd", images: int = 3, suffix: str = "png", first: int = 0
) -> Path:
    """So many images in each class; no two are alike, unless classes and numbers are."""
    for name in classes:
        label = sum(map(ord, name))
        for number in range(first, first + images):
            put(root / name, class_image(label, number), f"{number}.{suffix}")
    return root


def deep(values: Pixels, kind: str = "TIFF") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


def ramp(number: int, low: float, high: float, dtype: type) -> Pixels:
    """Values from low to high, in an order of the image's own."""
    values = np.linspace(low, high, 32 * 32)
    return np.random.default_rng(number).permutation(values).reshape(32, 32).astype(dtype)


def fill_deep(root: Path, low: float, high: float, dtype: type, suffix: str = "tif") -> None:
    for label, name in enumerate("abcd"):
        for number in range(3):
            kind = {"tif": "TIFF", "png": "PNG"}[suffix]
            put(root / name, deep(ramp(9 * label + number, low, high, dtype), kind), f"{number}.{suffix}")


def drawing(number: int, grey: int) -> Image.Image:
    """A shape of one brightness on a transparent ground."""
    alpha = np.zeros((32, 32), np.uint8)
    alpha[4 + number : 20 + number, 8:24] = 255
    return Image.fromarray(np.dstack([*[np.full((32, 32), grey, np.uint8)] * 3, alpha]))


def fill_drawings(root: Path, *greys: int) -> None:
    for label, name in enumerate("abcd"):
        for number, grey in enumerate(greys):
            put(root / name, drawing(label + 4 * number, grey), f"{number}.png")


def table(root: Path, text: str, info: str | None = None, images: str = "images") -> Path:
    """`labels.csv` of these lines, and images 0.png to 5.png."""
    for number in range(6):
        put(root / images, class_image(number, 0), f"{number}.png")
    (root / "labels.csv").write_text(text)
    if info is not None:
        (root / "info.json").write_text(info)
    return root


INFO = json.dumps({"image_column_name": "FILE_NAME", "category_column_name": "CATEGORY"})
LINES = "".join(f"{number}.png,{'xy'[number % 2]}\n" for number in range(6))
STRICT = f"FILE_NAME,CATEGORY\n{LINES}"


def few_classes(root: Path) -> None:
    fill(root, "ab", 3)


def one_class(root: Path) -> None:
    fill(root, "a", 3)


def one_image_each(root: Path) -> None:
    fill(root, "abcd", 1)


def images_alone(root: Path) -> None:
    put(root, class_image(0, 0), "0.png")
    put(root, class_image(0, 1), "1.png")


def same_classes_in_all_parts(root: Path) -> None:
    fill(root / "Training", "abcd", 3)
    fill(root / "validation", "abcd", 1, first=3)
    fill(root / "test", "abcd", 2, first=4)


def disjoint_parts(root: Path) -> None:
    fill(root / "train", "abc", 3)
    fill(root / "val", "de", 3)
    fill(root / "test", "fg", 3)


def val_is_held_out_of_train(root: Path) -> None:
    fill(root / "train", "abc", 3)
    fill(root / "val", "abc", 1, first=3)
    fill(root / "test", "fg", 3)


def test_without_labels(root: Path) -> None:
    fill(root / "train", "abcd", 3)
    put(root / "test", class_image(9, 9), "0.png")


test_without_labels.__test__ = False  # type: ignore[attr-defined]


def one_folder_around(root: Path) -> None:
    fill(root / "archive" / "pets", "abcd", 2)
    (root / "__MACOSX").mkdir()


def other_formats(root: Path) -> None:
    fill(root, "ab", 2, "jpg")
    fill(root, "c", 2, "jfif")
    fill(root, "d", 2, "jp2")
    fill(root, "e", 2, "tga")
    fill(root, "f", 2, "avif" if features.check("avif") else "webp")


def no_images(root: Path) -> None:
    fill(root, "ab", 2)
    put(root / "c", b"text", "notes.txt")
    put(root / "c", b"text", "more.txt")
    put(root / "a", b"film", "a.mp4")
    (root / "d").mkdir()


def without_suffix(root: Path) -> None:
    fill(root, "ab", 2)
    (root / "a" / "0.png").rename(root / "a" / "0")
    put(root / "a", b"text", "README")


def only_text(root: Path) -> None:
    for name in "ab":
        put(root / name, b"text", "notes.txt")


def link_to_the_parent(root: Path) -> None:
    fill(root, "abcd", 2)
    (root / "all").symlink_to(root, target_is_directory=True)
    (root / "a" / "up").symlink_to(root.parent, target_is_directory=True)


def link_to_a_class(root: Path) -> None:
    fill(root, "bcd", 2)
    (root / "a").symlink_to(root / "b", target_is_directory=True)


def link_to_elsewhere(root: Path) -> None:
    elsewhere = root.parent / "elsewhere"
    fill(elsewhere, "z", 2)
    (elsewhere / "z" / "again").symlink_to(elsewhere / "z", target_is_directory=True)
    fill(root, "abc", 2)
    (root / "d").symlink_to(elsewhere / "z", target_is_directory=True)


def links_to_nowhere(root: Path) -> None:
    fill(root, "abcd", 2)
    for number in range(2):
        (root / "a" / f"gone {number}.png").symlink_to(root / "nowhere.png")


def twice_in_one_class(root: Path) -> None:
    fill(root, "abcd", 2)
    shutil.copy(root / "a" / "0.png", root / "a" / "copy.png")
    os.link(root / "a" / "0.png", root / "a" / "hard link.png")
    large = root / "b" / "large.bmp"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)).save(large)
    shutil.copy(large, root / "b" / "large copy.bmp")
    other = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    other[-1, 0] += 1  # near the beginning of the file, where few look
    Image.fromarray(other).save(root / "b" / "large other.bmp")


def in_two_classes(root: Path) -> None:
    fill(root, "abcd", 2)
    shutil.copy(root / "a" / "0.png", root / "b" / "same.png")


def all_in_two_classes(root: Path) -> None:
    fill(root, "a", 2)
    shutil.copytree(root / "a", root / "b")


def hidden_folders(root: Path) -> None:
    fill(root, "ab", 2)
    fill(root / "a", [".ipynb_checkpoints"], 3)
    fill(root, [".trash"], 3)
    put(root / "a", b"junk", ".DS_Store")


def nested_folders(root: Path) -> None:
    fill(root, "b", 2)
    fill(root / "a", ["2019", "2020"], 2)
    put(root, class_image(5, 5), "cover.png")


def semicolons(root: Path) -> None:
    table(root, STRICT.replace(",", ";"), INFO)


def tabs(root: Path) -> None:
    table(root, STRICT.replace(",", "\t"), INFO)


def spaces(root: Path) -> None:
    table(root, STRICT.replace(",", ", "), INFO)


def comma_too_many(root: Path) -> None:
    table(root, STRICT, INFO.replace("}", ",}"))


def no_info(root: Path) -> None:
    table(root, STRICT)


def no_header(root: Path) -> None:
    table(root, LINES)


def unclear_columns(root: Path) -> None:
    table(root, "id,one,two\n0,x,y\n")


def beside_the_table(root: Path) -> None:
    table(root, STRICT, INFO, images=".")


def other_case(root: Path) -> None:
    table(root, STRICT.replace("0.png", "0.PNG"), INFO)


def two_cases(root: Path) -> None:
    table(root, STRICT.replace("0.png", "CAT.png"), INFO)
    put(root / "images", class_image(7, 7), "Cat.png")
    put(root / "images", class_image(8, 8), "cat.png")


def backslashes(root: Path) -> None:
    table(root, STRICT.replace("0.png", "sub\\0.png"), INFO)
    (root / "images" / "sub").mkdir()
    (root / "images" / "0.png").rename(root / "images" / "sub" / "0.png")


def listed_twice(root: Path) -> None:
    table(root, STRICT + "0.png,x\n1.png,x\n", INFO)


def empty_cell(root: Path) -> None:
    table(root, STRICT.replace("3.png", ""), INFO)


def latin(root: Path) -> None:
    table(root, "", INFO)
    (root / "labels.csv").write_bytes(STRICT.encode() + "5.png,K\xe4fer\n".encode("latin-1"))


def utf16(root: Path) -> None:
    table(root, "", INFO)
    (root / "labels.csv").write_bytes(STRICT.encode("utf-16"))


def case_of_classes(root: Path) -> None:
    table(root, STRICT.replace("0.png,x", "0.png,X"), INFO)


def floats(root: Path) -> None:
    fill_deep(root, 0, 1, np.float32)


def grey_of_32_bits(root: Path) -> None:
    fill_deep(root, 0, 100_000, np.int32)


def twelve_bits(root: Path) -> None:
    fill_deep(root, 0, 4095, np.uint16, "png")


def sixteen_bits(root: Path) -> None:
    fill_deep(root, 0, 65535, np.uint16, "png")


def white_drawings(root: Path) -> None:
    fill_drawings(root, 255, 240)


def black_drawings(root: Path) -> None:
    fill_drawings(root, 0, 60)


def drawings_of_both(root: Path) -> None:
    fill_drawings(root, 0, 255)


def one_flat(root: Path) -> None:
    fill(root, "ab", 2)
    put(root / "a", Image.new("RGB", (32, 32), "blue"), "blue.png")


def cut_short(root: Path) -> None:
    fill(root, "ab", 2, "jpg")
    data = (root / "a" / "0.jpg").read_bytes()
    (root / "a" / "0.jpg").write_bytes(data[: len(data) // 2])


def not_an_image(root: Path) -> None:
    fill(root, "ab", 2)
    put(root / "a", b"text", "text.png")


@dataclass(frozen=True)
class Row:
    """`classes`: in their order; `images`: of all; `notes`, `broken`: each is in one of the lines, in this order."""

    build: Callable[[Path], object]
    classes: str = ""
    images: int = 0
    notes: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    error: str = ""


ROWS = (
    Row(few_classes, "a b", 6),
    Row(one_class, "a", 3),
    Row(one_image_each, "a b c d", 4),
    Row(images_alone, error="nor subfolders (2 images); give"),
    Row(same_classes_in_all_parts, "a b c d", 24, ("Training, validation, test share the same 4 classes",)),
    Row(
        disjoint_parts,
        "set-train/a set-train/b set-train/c set-val/d set-val/e set-test/f set-test/g",
        21,
        (
            "train (3 classes), val (2 classes), test (2 classes): they are for meta-train, validation, meta-test",
        ),
    ),
    Row(
        val_is_held_out_of_train,
        "set-train/a set-train/b set-train/c set-test/f set-test/g",
        18,
        ("they are for meta-train, meta-test",),
    ),
    Row(test_without_labels, "a b c d", 12, ("`test` has no class folders",)),
    Row(one_folder_around, "a b c d", 8, ("`archive`, its only subfolder", "`pets`, its only subfolder")),
    Row(other_formats, "a b c d e f", 12),
    Row(
        no_images,
        "a b",
        4,
        ("3 files passed over: 2 .txt (class c), 1 .mp4 (class a)", "c (2 .txt), d (empty)"),
    ),
    Row(without_suffix, "a b", 4, ("1 file passed over: 1 without suffix (class a)",)),
    Row(only_text, error="no image in its 2 class folders; put images of each class into"),
    Row(
        link_to_the_parent,
        "a b c d",
        8,
        ("they lead to what is read already: a/up (a folder that holds this dataset), all (a",),
    ),
    Row(link_to_a_class, "b c d", 6, ("lead to what is read already: a (b)",)),
    Row(link_to_elsewhere, "a b c d", 8, ("lead to what is read already: d/again",)),
    Row(links_to_nowhere, "a b c d", 8, ("2 links lead nowhere: a/gone",)),
    Row(
        twice_in_one_class,
        "a b c d",
        10,
        (
            "2 images are there twice or more in one class, each is used once: 0.png = copy.png, large copy.bmp =",
        ),
    ),
    Row(
        in_two_classes, "a b c d", 7, ("1 image is in two classes or more, left out", "a/0.png = b/same.png")
    ),
    Row(
        all_in_two_classes,
        error="every image is in two classes or more (a/0.png = b/0.png); keep each in one",
    ),
    Row(hidden_folders, "a b", 4, ("passed over: .trash", "passed over: a/.ipynb_checkpoints")),
    Row(
        nested_folders,
        "a b",
        6,
        ("1 image beside the class folders", "in subfolders of a class count for it: a"),
    ),
    Row(semicolons, "x y", 6, ("labels.csv: read with semicolons",)),
    Row(tabs, "x y", 6, ("labels.csv: read with tabs",)),
    Row(spaces, "x y", 6, ("labels.csv: spaces around its cells are passed over",)),
    Row(comma_too_many, "x y", 6, ("info.json: a comma behind the last item",)),
    Row(no_info, "x y", 6, ("from column `FILE_NAME`, classes from `CATEGORY`",)),
    Row(no_header, "x y", 6, ("from column `1`, classes from `2`",)),
    Row(unclear_columns, error="(id, one, two) are file name and class is not clear; write info.json"),
    Row(beside_the_table, "x y", 6, ("6 images lie beside labels.csv",)),
    Row(other_case, "x y", 6, ("1 file name is spelled otherwise in labels.csv: 0.PNG is 0.png",)),
    Row(
        two_cases,
        error="labels.csv, line 2: image `CAT.png` may be Cat.png or cat.png, which differ in case only",
    ),
    Row(backslashes, "x y", 6, ("sub\\0.png is sub/0.png",)),
    Row(
        listed_twice,
        "x y",
        5,
        (
            "1 image is there twice or more in one class",
            "1 image is in two classes or more",
            "1.png, listed again",
        ),
    ),
    Row(empty_cell, error="labels.csv, line 5: a file name or class is empty; complete it"),
    Row(latin, error="labels.csv, line 8: not a comma-separated UTF-8 table; save it as UTF-8"),
    Row(utf16, "x y", 6, ("labels.csv: read as UTF-16",)),
    Row(case_of_classes, "X y x", 6, ("classes that differ in case only are kept apart: X and x",)),
    Row(floats, "a b c d", 12, ("become black to white",)),
    Row(grey_of_32_bits, "a b c d", 12, ("become black to white",)),
    Row(twelve_bits, "a b c d", 12, ("become black to white",)),
    Row(sixteen_bits, "a b c d", 12),
    Row(white_drawings, "a b c d", 8, ("transparent parts become black",)),
    Row(black_drawings, "a b c d", 8),
    Row(drawings_of_both, "a b c d", 8, ("transparent parts become grey",)),
    Row(one_flat, "a b", 5, ("flat: blue.png",)),
    Row(cut_short, "a b", 3, broken=("0.jpg: cut short, copy it again",)),
    Row(not_an_image, "a b", 4, broken=("text.png: not an image that Pillow knows",)),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.build.__name__)
def test_a_folder_is_read_or_refused_in_one_line(row: Row, tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    row.build(root)
    if row.error:
        with pytest.raises(InputError) as caught:
            outcome_of(root, tmp_path)
        assert row.error in str(caught.value) and "\n" not in str(caught.value)
        return
    outcome = outcome_of(root, tmp_path)
    assert outcome.classes == tuple(row.classes.split())
    assert len(outcome.images) == row.images
    for found, expected in ((outcome.notes, row.notes), (outcome.broken, row.broken)):
        text = "\n".join(found)
        assert bool(found) == bool(expected), text
        for part in expected:
            assert part in text, text
