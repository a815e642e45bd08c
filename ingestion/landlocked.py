"""Run a command that can open only what lies in the folders named:

    python -m ingestion.landlocked --list=DIR --read=DIR --write=DIR -- COMMAND

(`--list` gives the names in the folder and below, not the files.) The kernel keeps the restriction over
exec and for all children.
"""

from __future__ import annotations

import os
import sys

from landlock import FSAccess, Ruleset

ALWAYS_READABLE = ("/proc", "/sys")
DEVICES = "/dev"


def main(arguments: list[str]) -> None:
    """Restrict this process, then become the command behind `--`."""
    split = arguments.index("--")
    folders, command = arguments[:split], arguments[split + 1 :]
    read = FSAccess.READ_FILE | FSAccess.READ_DIR | FSAccess.EXECUTE
    granted = {"--list": FSAccess.READ_DIR, "--read": read, "--write": FSAccess.all()}
    rules = Ruleset()
    for option in folders:
        kind, _, folder = option.partition("=")
        rules.allow(folder, rules=granted[kind])
    rules.allow(*(f for f in ALWAYS_READABLE if os.path.exists(f)), rules=read)  # noqa: PTH110
    rules.allow(DEVICES, rules=FSAccess.all())
    rules.apply()
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
