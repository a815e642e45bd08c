"""Folders as bytes, to send them to other machines."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path


def pack(path: Path) -> bytes:
    """A file, or all files of a folder, as a zip without compression. Links are followed where they lead to files, as
    the receiver lacks what they lead to."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file, file.name if file == path else file.relative_to(path))
    return whole.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Write what `pack` has packed to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)
