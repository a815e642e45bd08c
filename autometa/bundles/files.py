"""The files of a bundle's folder: what belongs in, where links lead, what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autometa.bundles.errors import BundleError
from ingestion.member_names import clash_trouble, name_trouble, show_name

CACHES = frozenset({"__pycache__", "__MACOSX"})
CACHE_SUFFIXES = frozenset({".pyc", ".pyo"})
API_FILE = "api.py"


@dataclass(frozen=True)
class BundleFile:
    """A file by its path within the bundle, with slashes, and where its content lies."""

    name: str
    path: Path

    @property
    def size_bytes(self) -> int:
        """Size of the content."""
        return self.path.stat().st_size


def list_files(folder: Path) -> list[BundleFile]:
    """The files of a bundle in the order of their names; caches and hidden files are left out.

    A link counts as the file that it leads to. BundleError names a link that leads out of the folder (`api.py` may,
    for it is the same everywhere), to a folder or nowhere, and anything that is neither file nor folder.
    """
    found = sorted(_walk(folder, folder.resolve()), key=lambda file: file.name)
    if not found:
        raise BundleError(f"bundle {folder}: holds no file; put a model.py there")
    if trouble := clash_trouble(file.name for file in found):
        raise BundleError(f"bundle {folder}: {trouble}")
    return found


def _walk(folder: Path, root: Path) -> Iterator[BundleFile]:
    for entry in folder.iterdir():
        if entry.name.startswith(".") or entry.name in CACHES or entry.suffix in CACHE_SUFFIXES:
            continue
        if entry.is_symlink():
            yield BundleFile(_name(entry, root), _follow(entry, root))
        elif entry.is_dir():
            yield from _walk(entry, root)
        elif entry.is_file():
            yield BundleFile(_name(entry, root), entry)
        else:
            raise BundleError(f"{entry}: is neither a file nor a folder; remove it")


def _name(entry: Path, root: Path) -> str:
    name = (entry.parent.resolve() / entry.name).relative_to(root).as_posix()
    if trouble := name_trouble(name):
        raise BundleError(f"{show_name(str(entry))}: {trouble}")
    return name


def _follow(link: Path, root: Path) -> Path:
    target = link.resolve()
    if target.is_dir():
        raise BundleError(f"{link}: is a link to a folder; copy the folder into the bundle")
    if not target.is_file():
        raise BundleError(
            f"{link}: is a link to {link.readlink()}, where there is no file; put the file there"
        )
    if link.name != API_FILE and not target.is_relative_to(root):
        raise BundleError(f"{link}: is a link to {target}, outside the bundle; copy the file into it")
    return target
