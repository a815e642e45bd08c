"""Copying what the submission reports about its stages, predicted and actual seconds, so that scoring can show it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ingestion.errors import SubmissionError
from ingestion.outputs import write_atomically

STAGES_FILE = "stages.json"
MAX_BYTES = 64 * 2**10


def take_stages(model_dir: Path, output_dir: Path) -> str:
    """Copy `stages.json` from `model_dir`, if the submission left one there, into `output_dir`, unread.

    Returns "" or why it was not copied. No link is followed, not even of the folder: it could lead to files that the
    submission may not read. Call it after the last process of the submission has ended.
    """
    try:
        text = _read(model_dir, STAGES_FILE).decode("utf-8", "replace")
        write_atomically(output_dir / STAGES_FILE, text)
    except FileNotFoundError:
        return ""
    except SubmissionError as error:
        return f"the submission's {STAGES_FILE} {error.reason}: ignored"
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be copied ({error.strerror})"
        return f"the submission's {STAGES_FILE} {why}: ignored"
    return ""


def _read(folder: Path, name: str) -> bytes:
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
            data = stream.read(MAX_BYTES + 1)
    finally:
        os.close(file)
    if len(data) > MAX_BYTES:
        raise SubmissionError(f"is larger than {MAX_BYTES} bytes")
    return data
