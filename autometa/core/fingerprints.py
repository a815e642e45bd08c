"""What tells whether files are those of before."""

from __future__ import annotations

import hashlib
from pathlib import Path

IGNORED = (".", "@eaDir", "Thumbs.db", "desktop.ini")
"""Beginnings of names of files and folders that systems leave beside those of users."""


def fingerprint(folder: Path) -> str:
    """A digest of the names and sizes of all files of a folder but hidden ones, to know a copy of it elsewhere, or
    later; "" where there is no folder."""
    if not folder.is_dir():
        return ""
    whole = hashlib.blake2b(digest_size=8)
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if not any(part.startswith(IGNORED) for part in name.parts) and file.is_file():
            whole.update(f"{name}\0{file.stat().st_size}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def digest(path: Path, without: Path | None = None) -> str:
    """A digest of the names and contents of the files of a bundle; what Python compiles beside them is left out, and
    so is the entry of the bundle's folder in which `without` lies, such as an output."""
    whole = hashlib.blake2b(digest_size=8)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    if without is not None and without.resolve().is_relative_to(path.resolve()):
        entry = path / without.resolve().relative_to(path.resolve()).parts[0]
        files = [file for file in files if not file.is_relative_to(entry)]
    for file in files:
        if "__pycache__" in file.parts:
            continue
        if file != path:
            whole.update(str(file.relative_to(path)).encode(errors="surrogateescape") + b"\0")
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()
