"""Folders of images as people have them: layouts, links, doubles, and what else lies there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from synthetic import class_image

from ingestion.formats import image_suffixes


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


def parts_with_more_beside(root: Path) -> None:
    disjoint_parts(root)
    put(root, class_image(5, 5), "cover.png")
    put(root / "test", class_image(5, 6), "loose.png")
    fill(root / "test", [".trash"], 3)
    fill(root, [".cache"], 3)


def val_is_held_out_of_train(root: Path) -> None:
    fill(root / "train", "abc", 3)
    fill(root / "val", "abc", 1, first=3)
    fill(root / "test", "fg", 3)


def unlabelled_test(root: Path) -> None:
    fill(root / "train", "abcd", 3)
    put(root / "test", class_image(9, 9), "0.png")


def one_folder_around(root: Path) -> None:
    fill(root / "archive" / "pets", "abcd", 2)
    (root / "__MACOSX").mkdir()


def other_formats(root: Path) -> None:
    fill(root, "ab", 2, "jpg")
    fill(root, "c", 2, "jfif")
    fill(root, "d", 2, "jp2")
    fill(root, "e", 2, "tga")
    fill(root, "f", 2, "avif" if ".avif" in image_suffixes() else "webp")


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
    for itself in (root / "itself", root / "a" / "itself"):
        itself.symlink_to(itself)


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
