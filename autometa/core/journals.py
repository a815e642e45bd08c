"""Journals: files of JSON lines. A run appends to them, and a later run can continue them. And small files of text
that are always whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(file: Path, text: str) -> None:
    """Write a file of text atomically: it is there whole, or as it was before."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def append(file: Path, record: dict[str, Any]) -> None:
    """Add a line to a journal, at once, so that a kill loses none that is done."""
    with file.open("a", encoding="utf-8") as journal:
        journal.write(json.dumps(record) + "\n")


def read(file: Path) -> list[dict[str, Any]]:
    """The records of a journal whose end is whole; none where there is no such file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def cut_damaged_end(file: Path) -> int:
    """Cut a journal before its first damaged line; returns how many bytes were removed.

    A run that is killed while it writes can leave half a line. A whole line is a JSON object that ends in a newline.
    Returns 0 if nothing was wrong or the file does not exist.
    """
    if not file.exists():
        return 0
    content = file.read_bytes()
    whole = 0
    for line in content.splitlines(keepends=True):
        try:
            is_whole = line.endswith(b"\n") and isinstance(json.loads(line), dict)
        except ValueError:
            is_whole = False
        if not is_whole:
            break
        whole += len(line)
    if whole < len(content):
        with file.open("rb+") as stream:
            stream.truncate(whole)
    return len(content) - whole


def tidy_folder(folder: Path, name: str, report: Callable[[str], None]) -> None:
    """Cut off what a kill has left half written at the end of the journal called `name`; half files go too."""
    for unfinished in folder.glob(".*.[0-9]*"):  # see `core.files.write_tensors`
        unfinished.unlink()
    if cut := cut_damaged_end(folder / name):
        report(f"{name}: its damaged end is cut off ({cut} bytes)")
