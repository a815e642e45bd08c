"""Journals: files of JSON lines. A run appends to them, and a later run can continue them."""

from __future__ import annotations

import json
from pathlib import Path


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
