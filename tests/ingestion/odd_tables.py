"""Folders with tables of labels as people write them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from odd_folders import put
from synthetic import class_image


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


def semicolons(root: Path) -> None:
    table(root, STRICT.replace(",", ";"), INFO)


def tabs(root: Path) -> None:
    table(root, STRICT.replace(",", "\t"), INFO)


def spaces(root: Path) -> None:
    table(root, STRICT.replace(",", ", "), INFO)


def comma_too_many(root: Path) -> None:
    table(root, STRICT, INFO.replace("}", ",}"))


def key_twice(root: Path) -> None:
    table(root, STRICT, INFO.replace("{", '{"image_column_name": "PLACE", '))


def no_info(root: Path) -> None:
    table(root, STRICT)


def no_header(root: Path) -> None:
    table(root, LINES)


def unclear_columns(root: Path) -> None:
    table(root, "id,one,two\n0,x,y\n")


def beside_the_table(root: Path) -> None:
    table(root, STRICT, INFO, images=".")


def named_with_their_folder(root: Path) -> None:
    table(root, re.sub(r"^(?=\d)", "images/", STRICT, flags=re.MULTILINE), INFO)


def other_case(root: Path) -> None:
    table(root, STRICT.replace("0.png", "0.PNG"), INFO)


def two_cases(root: Path) -> None:
    table(root, STRICT.replace("0.png", "CAT.png"), INFO)
    put(root / "images", class_image(7, 7), "Cat.png")
    put(root / "images", class_image(8, 8), "cat.png")


def without_suffixes(root: Path) -> None:
    table(root, STRICT.replace(".png", "").replace("FILE_NAME", "id"))


def backslashes(root: Path) -> None:
    table(root, STRICT.replace("0.png", "sub\\0.png"), INFO)
    (root / "images" / "sub").mkdir()
    (root / "images" / "0.png").rename(root / "images" / "sub" / "0.png")


def listed_twice(root: Path) -> None:
    table(root, STRICT + "0.png,x\n1.png,x\n", INFO)


def some_missing(root: Path) -> None:
    table(root, STRICT.replace("3.png", "gone.png"), INFO)


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
