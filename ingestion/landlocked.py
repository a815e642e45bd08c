"""Run a command that can only open files in the named folders:

    python -m ingestion.landlocked --list=DIR --read=DIR --write=DIR -- COMMAND

(`--list` gives the names in the folder and below, not the files. `--read` also takes a file.) The kernel keeps the
restriction after exec and for all children.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from landlock import FSAccess, Ruleset

READABLE_FOLDERS = ("/proc/self", "/proc/sys", "/sys")
READABLE_FILES = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems")
"""The parts of `/proc` about the machine and this process, not about other processes."""
DEVICES = "/dev"


def main(arguments: list[str]) -> None:
    """Restrict this process, then become the command behind `--`."""
    split = arguments.index("--")
    folders, command = arguments[:split], arguments[split + 1 :]
    read_file = FSAccess.READ_FILE | FSAccess.EXECUTE
    read = read_file | FSAccess.READ_DIR
    granted = {"--list": FSAccess.READ_DIR, "--read": read, "--write": FSAccess.all()}
    rules = Ruleset()
    for option in folders:
        kind, _, path = option.partition("=")
        rules.allow(path, rules=granted[kind] if Path(path).is_dir() else read_file)
    rules.allow(*filter(os.path.exists, READABLE_FOLDERS), rules=read)
    rules.allow(*filter(os.path.exists, READABLE_FILES), rules=FSAccess.READ_FILE)
    rules.allow(DEVICES, rules=FSAccess.all())
    rules.apply()
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
