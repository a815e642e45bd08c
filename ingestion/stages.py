"""Copying what the submission reports about its stages and its choices, so that scoring can show it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ingestion.errors import SubmissionError
from ingestion.outputs import write_atomically

STAGES_FILE, CHOICES_FILE = "stages.json", "choices.json"
MAX_BYTES = 64 * 2**10
MAX_CHOICES_BYTES = 256 * 2**10


def take_stages(model_dir: Path, output_dir: Path) -> str:
    """Copy `stages.json` and `choices.json` from `model_dir`, if the submission left them there, into `output_dir`,
    unread.

    Returns "" or why one was not copied. No link is followed, not even of the folder: it could lead to files that the
    submission may not read. Call it after the last process of the submission has ended.
    """
    files = ((STAGES_FILE, MAX_BYTES), (CHOICES_FILE, MAX_CHOICES_BYTES))
    reasons = [_take(model_dir, output_dir, name, max_bytes) for name, max_bytes in files]
    return "; ".join(filter(None, reasons))


def _take(model_dir: Path, output_dir: Path, name: str, max_bytes: int) -> str:
    try:
        text = _read(model_dir, name, max_bytes).decode("utf-8", "replace")
        write_atomically(output_dir / name, text)
    except FileNotFoundError:
        return ""
    except SubmissionError as error:
        return f"the submission's {name} {error.reason}: ignored"
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be copied ({error.strerror})"
        return f"the submission's {name} {why}: ignored"
    return ""


def _read(folder: Path, name: str, max_bytes: int) -> bytes:
    within = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=within)
    finally:
        os.close(within)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise SubmissionError("is not a regular file")
        with os.fdopen(file, "rb", closefd=False) as stream:
            data = stream.read(max_bytes + 1)
    finally:
        os.close(file)
    if len(data) > max_bytes:
        raise SubmissionError(f"is larger than {max_bytes} bytes")
    return data
