"""Folders of results, each used by one program at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from autometa.core.errors import ConfigError


def claim_folder(
    mark: Path, what: str, advice: str, clear: Callable[[], None] = lambda: None, *, goes_on: bool
) -> IO[str]:
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


@contextmanager
def locked_folder(folder: Path, option: str) -> Iterator[None]:
    """Nobody else locks this folder in this block; it is made. ConfigError names the option where another program has
    locked it, or where it cannot be made. On a file system without locks, nothing is known of others."""
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            opened = os.open(folder, os.O_RDONLY)
            held.callback(os.close, opened)
        except OSError as error:
            raise ConfigError(
                f"{option} {folder}: cannot be used ({error.strerror}); name another folder"
            ) from error
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{option} {folder}: another program is using it; name another folder"
            ) from error
        except OSError:
            held.close()
        yield
