"""Folders of results, each used by one program at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import IO

from autometa.core.errors import ConfigError


def claim_folder(mark: Path, what: str, advice: str, clear: Callable[[], None], *, goes_on: bool) -> IO[str]:
    """Reserve the folder of `mark`, a file that tells whose it is, as long as the returned file is open.

    `what` it holds: the output of a run. `goes_on`: one that holds such output already is taken, too; else `advice`
    says what to do about it. `clear` deletes what is not kept. ConfigError if the folder holds other files, another
    program uses it, or it cannot be written.
    """
    folder = mark.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ours = mark.exists()
        if any(folder.iterdir()) and not (goes_on and ours):
            found = f"{advice}, or name" if ours else f"it is not the output of a {what}: name"
            raise ConfigError(f"--output {folder}: exists and is not empty; {found} another folder")
        claim = mark.open("a")
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        clear()
    except BlockingIOError as error:
        raise ConfigError(f"--output {folder}: another {what} is using it; name another folder") from error
    except OSError as error:
        raise ConfigError(
            f"--output {folder}: cannot be used ({error.strerror}); name another folder"
        ) from error
    return claim
