"""What tells whether files are those of before."""

from __future__ import annotations

import hashlib
from pathlib import Path


def fingerprint(folder: Path) -> str:
    """A digest of the names and sizes of all files of a folder but hidden ones, to know a copy of it elsewhere, or
    later; "" where there is no folder."""
    if not folder.is_dir():
        return ""
    whole = hashlib.blake2b(digest_size=8)
    for file in sorted(folder.rglob("*")):
        if not file.name.startswith(".") and file.is_file():
            whole.update(
                f"{file.relative_to(folder)}\0{file.stat().st_size}\n".encode(errors="surrogateescape")
            )
    return whole.hexdigest()


def digest(path: Path) -> str:
    """A digest of the names and contents of the files of a bundle; what Python compiles beside them is left out."""
    whole = hashlib.blake2b(digest_size=8)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        if "__pycache__" in file.parts:
            continue
        if file != path:
            whole.update(str(file.relative_to(path)).encode(errors="surrogateescape") + b"\0")
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()
