"""Reading untrusted files, and writing files atomically."""

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from scoring.errors import UnreadableFileError
from scoring.text import one_line

T = TypeVar("T")

MAX_FILE_BYTES = 64 * 2**20
# O_NONBLOCK: opening a named pipe must not wait for a writer. Flags that a system lacks are 0.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_bytes(path: Path, max_bytes: int = MAX_FILE_BYTES, *, follow_link: bool = False) -> bytes:
    """Return the content of a regular file of at most `max_bytes` bytes.

    Raises FileNotFoundError if there is no file, and UnreadableFileError (whose text is a predicate, "is a
    symbolic link") for links unless `follow_link`, for folders, pipes and devices, and for larger files.
    """
    flags = _OPEN_FLAGS | (0 if follow_link else getattr(os, "O_NOFOLLOW", 0))
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be opened ({error.strerror})"
        raise UnreadableFileError(why) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnreadableFileError("is not a regular file")
        return _read_capped(descriptor, max_bytes)
    finally:
        os.close(descriptor)


def read_optional(path: Path, max_bytes: int, parse: Callable[[bytes], T]) -> tuple[T | None, list[str]]:
    """What `parse` makes of an untrusted file, None if the file is missing or unusable, and notes that say what was
    ignored. `parse` raises ValueError where the content is malformed."""
    try:
        data = read_bytes(path, max_bytes)
    except FileNotFoundError:
        return None, []
    except UnreadableFileError as error:
        return None, [f"{path.name} {error}: ignored"]
    try:
        return parse(data), []
    except ValueError as error:
        return None, [f"{path.name} is malformed: ignored ({one_line(str(error))})"]


def _read_capped(descriptor: int, max_bytes: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise UnreadableFileError(f"is larger than {max_bytes} bytes")
    return data


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: to a temporary file in the same folder, which is then renamed. OSError
    names the file where that fails."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        temporary.chmod(0o644)  # mkstemp makes private files; results are meant to be read
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically; characters that UTF-8 cannot encode become question marks."""
    write_bytes(path, text.encode("utf-8", errors="replace"))
