"""Disks that fail: full ones, and what a kill at any moment would have left on them."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from autometa.core import files

FULL = "No space left on device"
HALF_NAME = re.compile(r"^\.(.+)\.[0-9]+$|^\.(.+)\.[a-z0-9_]{8}$|^(notes)-[0-9a-f]{32}$")
"""Names under which files are written before they are renamed: those of `replacing`, of scoring, of caches."""


def final_name(path: Path) -> str:
    """The name that a file has, or gets once it is whole."""
    if path.suffix == ".writing":
        return f"{path.stem}.features"
    match = HALF_NAME.match(path.name)
    return next(filter(None, match.groups())) if match else path.name


def path_of(file: Any) -> Path:
    """The path of an open file, or of a file by name."""
    return Path(f"/proc/self/fd/{file}").readlink() if isinstance(file, int) else Path(os.fspath(file))


class FullFile:
    """A file that takes half of what is written to it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, data: Any) -> int:
        """Half of it, then an error that names no file, as the system's does."""
        self._stream.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, FULL)

    def writelines(self, lines: Any) -> None:
        """The same for lines."""
        self.write("".join(lines))


class FullDisk:
    """Writing any file whose final name matches one of the `patterns` fails for want of space, after the first
    `spared` times; `failed` are those that did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *patterns: str, spared: int = 0) -> None:
        self.patterns, self.spared, self.failed = patterns, spared, list[str]()
        open_file, write, reserve, save = io.open, os.write, os.posix_fallocate, files.save_file

        def opening(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            stream = open_file(file, mode, *rest, **named)
            return FullFile(stream) if set(mode) & set("wax+") and self._is_full(file) else stream

        def writing(opened: int, data: Any) -> int:
            if self._is_full(opened):
                write(opened, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, FULL)
            return write(opened, data)

        def reserving(opened: int, *rest: int) -> None:
            if self._is_full(opened):
                raise OSError(errno.ENOSPC, FULL)
            reserve(opened, *rest)

        def saving(tensors: Any, file: Path, **named: Any) -> None:
            save(tensors, file, **named)
            if self._is_full(file):
                os.truncate(file, file.stat().st_size // 2)
                raise SafetensorError(f"Error while serializing: I/O error: {FULL} (os error 28)")

        monkeypatch.setattr(io, "open", opening)
        monkeypatch.setattr(os, "write", writing)
        monkeypatch.setattr(os, "posix_fallocate", reserving)
        monkeypatch.setattr(files, "save_file", saving)

    def _is_full(self, file: Any) -> bool:
        name = final_name(path_of(file))
        if not any(fnmatch(name, pattern) for pattern in self.patterns):
            return False
        if self.spared > 0:
            self.spared -= 1
            return False
        self.failed.append(name)
        return True


class Snapshots:
    """What a kill would leave of a folder, at every moment at which a file in it is written, flushed, renamed or
    deleted; `moments` tells the kind and the file of each. Files of tensors are never changed in place: links do."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.store, self.moments = folder, store, list[str]()

    def take(self, moment: str) -> Path:
        """Copy the folder as it is now."""
        copy = self.store / f"{len(self.moments):04}"
        shutil.copytree(self.folder, copy, copy_function=_copy)
        self.moments.append(moment)
        return copy

    def take_half(self, moment: str, file: Path, before: int = 0) -> None:
        """The same, but only half of what was written after the first bytes of a file has come to the disk."""
        copy = self.take(moment) / file.relative_to(self.folder)
        content = copy.read_bytes()
        copy.unlink()  # it may be a link
        copy.write_bytes(content[: (before + len(content)) // 2])

    @contextmanager
    def taking(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """While the block runs."""
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", self._around(os.replace, "rename", halves=True))
            patch.setattr(os, "unlink", self._around(os.unlink, "delete"))
            patch.setattr(os, "fsync", self._around(os.fsync, "flush"))
            patch.setattr(os, "write", self._around(os.write, "append", after=True))
            yield

    def _around(
        self, function: Callable[..., Any], kind: str, *, halves: bool = False, after: bool = False
    ) -> Callable[..., Any]:
        def snapping(file: Any, *rest: Any, **named: Any) -> Any:
            path = path_of(file)
            within = path.is_relative_to(self.folder) and path.exists()
            moment, before = f"{kind} {final_name(path)}", path.stat().st_size if within else 0
            if within and not after:
                self.take(moment)
            if within and halves:
                self.take_half(f"half {final_name(path)}", path)
            result = function(file, *rest, **named)
            if within and after:
                self.take_half(f"half {final_name(path)}", path, before)
                self.take(moment)
            return result

        return snapping


def _copy(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        os.link(source, target)
    else:
        shutil.copyfile(source, target)
