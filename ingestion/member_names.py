"""Names of files in a bundle: what a name must not be, so that all systems read the same files from it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from ingestion.shown import UNSEEN, show

MOST_NAME_BYTES = 255
"""Of one part of a path: more than that, no usual file system holds."""
MOST_PARTS = 64
MOST_NAME_SHOWN = 120
HIDING = UNSEEN | {"Cf"}
"""Unicode categories of what is not seen in a name."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³])(\..*)?", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")


def show_name(name: str) -> str:
    """A name as it can be shown in a line."""
    return show(name, MOST_NAME_SHOWN, unseen=HIDING)


def name_trouble(name: str) -> str:
    """What is wrong with the path of a file within a bundle, with slashes, and what to do; empty if nothing is."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or _DRIVE.match(name):
        return "leaves the bundle's folder; give a path within it, with slashes"
    if any(unicodedata.category(letter) in HIDING for letter in name):
        return "has characters that are not seen; rename it"
    if not parts and not name.endswith("/"):
        return "is no name of a file; leave it out"
    if len(parts) > MOST_PARTS:
        return f"lies {len(parts)} folders deep, at most {MOST_PARTS}; move it up"
    return next(filter(None, map(_part_trouble, parts)), "")


def _part_trouble(part: str) -> str:
    """The same for the name of one folder or file."""
    if len(part.encode()) > MOST_NAME_BYTES:
        return f"has a name of {len(part.encode())} bytes, at most {MOST_NAME_BYTES}; rename it"
    if _RESERVED.fullmatch(part):
        return f"has the name of a device on Windows (`{part}`); rename it"
    if part.endswith((".", " ")):
        return "has a name that ends in a dot or a space, which Windows drops; rename it"
    return ""


def clash_trouble(names: Iterable[str]) -> str:
    """Which two of these paths of files are the same on some system, and what to do; empty if none are."""
    files: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", name).casefold()
        if key in files:
            return _same(files[key], name)
        files[key] = name
    for key, name in files.items():
        for parent in list(PurePosixPath(key).parents)[:-1]:
            if str(parent) in files:
                return f"`{show_name(files[str(parent)])}` is a file, but `{show_name(name)}` lies in it; rename one"
    return ""


def _same(one: str, other: str) -> str:
    if one == other:
        return f"`{show_name(one)}` is in it twice; leave one out"
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        return f"two files are called `{show_name(one)}`, in two encodings of its letters; rename one"
    return f"`{show_name(one)}` and `{show_name(other)}` differ only in case; rename one"
