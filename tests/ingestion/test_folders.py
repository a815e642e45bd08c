"""Any folder of images that a person has: what is read, what is said about it, or the one line that refuses it.

A row of the table: how the folder is made, and what becomes of it.
"""

from __future__ import annotations

from pathlib import Path

import odd_folders as folders
import odd_images as images
import odd_tables as tables
import pytest
from folder_rows import Row, RunRow, check, check_run
from PIL import Image

from ingestion.folders import ClassWalk
from ingestion.formats import image_suffixes

ROWS = (
    Row(folders.few_classes, "a b", 6),
    Row(folders.one_class, "a", 3),
    Row(folders.one_image_each, "a b c d", 4),
    Row(folders.images_alone, error="nor subfolders (2 images); give"),
    Row(
        folders.same_classes_in_all_parts,
        "a b c d",
        24,
        ("Training, validation, test share the same 4 classes",),
    ),
    Row(
        folders.disjoint_parts,
        "set-train/a set-train/b set-train/c set-val/d set-val/e set-test/f set-test/g",
        21,
        (
            "train (3 classes), val (2 classes), test (2 classes): they are for meta-train, validation, meta-test",
        ),
    ),
    Row(
        folders.parts_with_more_beside,
        "set-train/a set-train/b set-train/c set-val/d set-val/e set-test/f set-test/g",
        21,
        (
            "1 image beside the class folders passed over",
            "1 image beside the class folders of `test` passed over",
            "hidden folders passed over: test/.trash",
            "hidden folders passed over: .cache",
        ),
    ),
    Row(
        folders.val_is_held_out_of_train,
        "set-train/a set-train/b set-train/c set-test/f set-test/g",
        18,
        ("they are for meta-train, meta-test",),
    ),
    Row(folders.unlabelled_test, "a b c d", 12, ("`test` has no class folders",)),
    Row(
        folders.one_folder_around,
        "a b c d",
        8,
        ("`archive`, its only subfolder", "`pets`, its only subfolder"),
    ),
    Row(folders.other_formats, "a b c d e f", 12),
    Row(
        folders.no_images,
        "a b",
        4,
        ("3 files passed over: 2 .txt (class c), 1 .mp4 (class a)", "c (2 .txt), d (empty)"),
    ),
    Row(folders.without_suffix, "a b", 4, ("1 file passed over: 1 without suffix (class a)",)),
    Row(folders.only_text, error="no image in its 2 class folders; put images of each class into"),
    Row(
        folders.link_to_the_parent,
        "a b c d",
        8,
        ("they lead to what is read already: a/up (a folder that holds this dataset), all (a",),
    ),
    Row(folders.link_to_a_class, "b c d", 6, ("lead to what is read already: a (b)",)),
    Row(folders.link_to_elsewhere, "a b c d", 8, ("lead to what is read already: d/again",)),
    Row(folders.links_to_nowhere, "a b c d", 8, ("3 links lead nowhere: a/gone",)),
    Row(
        folders.twice_in_one_class,
        "a b c d",
        10,
        (
            "2 images are there twice or more in one class, each is used once: 0.png = copy.png, large copy.bmp =",
        ),
    ),
    Row(
        folders.in_two_classes,
        "a b c d",
        7,
        ("1 image is in two classes or more, left out", "a/0.png = b/same.png"),
    ),
    Row(
        folders.all_in_two_classes,
        error="every image is in two classes or more (a/0.png = b/0.png); keep each in one",
    ),
    Row(folders.hidden_folders, "a b", 4, ("passed over: .trash", "passed over: a/.ipynb_checkpoints")),
    Row(
        folders.nested_folders,
        "a b",
        6,
        ("1 image beside the class folders", "in subfolders of a class count for it: a"),
    ),
    Row(tables.semicolons, "x y", 6, ("labels.csv: read with semicolons",)),
    Row(tables.tabs, "x y", 6, ("labels.csv: read with tabs",)),
    Row(tables.spaces, "x y", 6, ("labels.csv: spaces around its cells are passed over",)),
    Row(tables.comma_too_many, "x y", 6, ("info.json: a comma behind the last item",)),
    Row(tables.key_twice, "x y", 6, ("info.json: `image_column_name`: comes twice in one object; the last",)),
    Row(tables.no_info, "x y", 6, ("from column `FILE_NAME`, classes from `CATEGORY`",)),
    Row(tables.no_header, "x y", 6, ("from column `1`, classes from `2`",)),
    Row(tables.unclear_columns, error="(id, one, two) are file name and class is not clear; write info.json"),
    Row(tables.named_with_their_folder, "x y", 6),
    Row(tables.beside_the_table, "x y", 6, ("6 images lie beside labels.csv",)),
    Row(tables.other_case, "x y", 6, ("1 file name is spelled otherwise in labels.csv: 0.PNG is 0.png",)),
    Row(
        tables.two_cases,
        error="labels.csv, line 2: image `CAT.png` may be Cat.png or cat.png; spell it as the file is called",
    ),
    Row(tables.without_suffixes, "x y", 6, ("from column `id`", "6 file names are spelled otherwise")),
    Row(tables.backslashes, "x y", 6, ("sub\\0.png is sub/0.png",)),
    Row(
        tables.listed_twice,
        "x y",
        5,
        (
            "1 image is there twice or more in one class",
            "1 image is in two classes or more",
            "1.png, listed again",
        ),
    ),
    Row(
        tables.some_missing,
        "x y",
        5,
        ("labels.csv: 1 image that it names is not there: gone.png",),
        broken=("gone.png: no such file",),
    ),
    Row(tables.empty_cell, error="labels.csv, line 5: a file name or class is empty; complete it"),
    Row(tables.latin, error="labels.csv, line 8: not a comma-separated UTF-8 table; save it as UTF-8"),
    Row(tables.utf16, "x y", 6, ("labels.csv: read as UTF-16",)),
    Row(tables.case_of_classes, "X y x", 6, ("classes that differ in case only are kept apart: X and x",)),
    Row(images.floats, "a b c d", 12, ("to 0.999 become black to white",), spread=200),
    Row(images.grey_of_32_bits, "a b c d", 12, ("become black to white",), spread=200),
    Row(images.twelve_bits, "a b c d", 12, ("become black to white",), spread=200),
    Row(images.sixteen_bits, "a b c d", 12, spread=200),
    Row(images.stuck_pixels, "a b c d", 13, ("become black to white",), spread=200),
    Row(images.one_float_among_photos, "a b c d", 281, ("become black to white",)),
    Row(images.white_drawings, "a b c d", 8, ("transparent parts become black",), spread=200),
    Row(images.black_drawings, "a b c d", 8, spread=100),
    Row(images.drawings_of_both, "a b c d", 8, ("transparent parts become grey",), spread=100),
    Row(images.one_flat_in_twelve_bits, "a b", 5, ("flat: special.png",)),
    Row(images.one_flat, "a b", 5, ("flat: blue.png",)),
    Row(images.cut_short, "a b", 3, broken=("0.jpg: cut short, copy it again",)),
    Row(images.huge_jpeg, "a b", 5, most_pixels=20_000),
    Row(
        images.huge_png,
        "a b",
        4,
        broken=("special.png: DecompressionBombError: image size (160000",),
        most_pixels=20_000,
    ),
    Row(images.huge_progressive_jpeg, "a b", 4, broken=("is more than the 40000 that",), most_pixels=20_000),
    Row(images.damaged_avif, "a b", 4, broken=("broken.avif: ",))
    if ".avif" in image_suffixes()
    else Row(images.damaged_avif, "a b", 4, ("1 file passed over: 1 .avif (class a; Pillow 11.3",)),
    Row(images.not_an_image, "a b", 4, broken=("text.png: not an image that Pillow knows",)),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.build.__name__)
def test_a_folder_is_read_or_refused_in_one_line(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    root.mkdir()
    row.build(root)
    if row.most_pixels:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", row.most_pixels)
    check(row, root, tmp_path)


FEW = "to tell few classes apart, use `autometa fit` and `autometa classify`"

RUN_ROWS = (
    RunRow(
        folders.few_classes,
        error="too few classes or images for a run: set has 2 classes with 3 images each; it needs 4 classes in a "
        "dataset with 2 images each (1 query and 1 shot): ask for fewer with --query-per-class and --shots, or add "
        f"classes and images; {FEW}",
    ),
    RunRow(folders.one_class, error="set has 1 class with 3 images each; it needs 4 classes"),
    RunRow(
        folders.one_image_each,
        error="set has 4 classes with 1 image each; it needs 4 classes in a dataset with 2",
    ),
    RunRow(folders.fill, {"query_images_per_class": 20}, error="with 21 images each (20 queries and 1 shot)"),
    RunRow(folders.disjoint_parts, parts="train:set-train:3 train:set-val:2 test:set-test:2"),
    RunRow(
        folders.disjoint_parts, parts="train:set-train:3 valid:set-val:2 test:set-test:2", validation=True
    ),
    RunRow(
        folders.disjoint_parts, {"protocol": "cross-domain"}, error="cross-domain needs at least two datasets"
    ),
    RunRow(folders.same_classes_in_all_parts, parts="train:set:2 test:set:2"),
    RunRow(
        folders.fill,
        {"ways": (50, 60)},
        "train:set:2 test:set:2",
        ("--ways 50-60 is more than set has (2 classes for meta-test): its tasks have 2 at most",),
    ),
    RunRow(
        folders.fill,
        {"shots": (1, 10)},
        "train:set:2 test:set:2",
        (
            "--shots 1-10 is more than set has (3 images in its smallest class, 1 of them queries): its tasks have 2",
        ),
    ),
)


@pytest.mark.parametrize("row", RUN_ROWS, ids=lambda row: row.build.__name__)
def test_a_run_says_what_it_makes_of_a_folder(row: RunRow, tmp_path: Path) -> None:
    row.build(tmp_path / "set")
    check_run(row, tmp_path / "set")


def test_a_folder_that_is_named_by_a_link_is_walked_through(tmp_path: Path) -> None:
    (tmp_path / "there" / "deep").mkdir(parents=True)
    (tmp_path / "there" / "deep" / "1.png").touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there")
    walk = ClassWalk(link)
    walk.read([("", link)])
    assert walk.files()[0] == [link / "deep" / "1.png"]
