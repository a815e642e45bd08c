"""Journals: files of JSON lines to which a run appends, and which a later run goes on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def append(file: Path, record: dict[str, Any]) -> None:
    """Add a line to a journal, at once, so that a kill loses none that is done."""
    with file.open("a", encoding="utf-8") as journal:
        journal.write(json.dumps(record) + "\n")


def read(file: Path) -> list[dict[str, Any]]:
    """The records of a journal whose end is whole; none where there is no such file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def cut_damaged_end(file: Path) -> int:
    """Cut a journal after the last line up to which all are whole: a run that is killed while it writes may leave
    half a line. Returns the bytes that are gone; 0 where nothing was wrong or there is no such file."""
    if not file.exists():
        return 0
    content = file.read_bytes()
    whole = 0
    for line in content.splitlines(keepends=True):
        if not _is_record(line):
            break
        whole += len(line)
    if whole < len(content):
        with file.open("rb+") as stream:
            stream.truncate(whole)
    return len(content) - whole


def _is_record(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
