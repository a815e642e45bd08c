"""Zip files that depend on their content only."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from autometa.bundles.errors import BundleError

EPOCH = (1980, 1, 1, 0, 0, 0)
Content = bytes | Path


def write_zip(
    archive: Path,
    contents: Iterable[tuple[str, Content]],
    *,
    overwrite: bool,
    check: Callable[[Path], None] = lambda written: None,
) -> int:
    """Write files by name, atomically; the same files give the same bytes. Returns the size in bytes. `check` gets
    what was written before it becomes `archive`, and may raise: what was there stays then.

    BundleError if the file exists and is not to be overwritten, or cannot be written.
    """
    if archive.exists() and not overwrite:
        raise BundleError(f"-o {archive}: exists; name another file or add --overwrite")
    partial = archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as target:
            for name, content in sorted(contents, key=lambda pair: pair[0]):
                _add(target, name, content)
        check(partial)
        partial.replace(archive)
    except OSError as problem:
        raise BundleError(
            f"-o {archive}: cannot be written ({problem.strerror}); name another file"
        ) from problem
    finally:
        partial.unlink(missing_ok=True)
    return archive.stat().st_size


def _add(target: zipfile.ZipFile, name: str, content: Content) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    data = content if isinstance(content, bytes) else content.read_bytes()
    target.writestr(entry, data)


def size_text(size_bytes: int) -> str:
    """A size for people: `12 kB`, `3.4 MB`."""
    if size_bytes < 1_000_000:
        return f"{max(size_bytes / 1e3, 0.1):.0f} kB" if size_bytes >= 1000 else f"{size_bytes} bytes"
    return f"{size_bytes / 1e6:.1f} MB"
