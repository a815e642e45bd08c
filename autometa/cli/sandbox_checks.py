"""What `autometa doctor` says of the sandboxes for submissions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Literal

from autometa.cli.checks import Finding
from ingestion.confinement import OPEN, describe_confinement
from ingestion.errors import InputError
from ingestion.sandbox import choose_sandbox

SANDBOXES: tuple[Literal["bubblewrap", "landlock"], ...] = ("bubblewrap", "landlock")


def check_sandboxes() -> Iterator[Finding]:
    """Which sandboxes work, and by what they confine. That none does is a note: code that one trusts runs without."""
    usable: list[str] = []
    for name in SANDBOXES:
        try:
            choose_sandbox(name)
        except InputError as error:
            what = str(error).removeprefix(f"--sandbox {name}: ").rpartition("; ")[0]
            yield Finding("sandbox", "note", f"{name}: {what}", _sandbox_remedy(name))
        else:
            usable.append(name)
            yield _confinement(name)
    yield (
        _strict()
        if usable
        else Finding("sandbox", "note", "none works: run only submissions that you trust", "see above")
    )


def _confinement(name: Literal["bubblewrap", "landlock"]) -> Finding:
    """By what a sandbox that works here confines files, network and processes."""
    confinement = describe_confinement(name)
    parts = {
        "files": confinement.files,
        "network": confinement.network,
        "processes": confinement.processes,
        "system calls": confinement.system_calls,
    }
    what = "; ".join(f"{part}: {by}" for part, by in parts.items())
    if not any(OPEN in by for by in parts.values()):
        return Finding("sandbox", "ok", f"{name}: {what}")
    fix = "install bubblewrap" if name == "landlock" else "use a kernel with seccomp"
    return Finding("sandbox", "note", f"{name}: {what}", f"{fix}, or run only submissions that you trust")


def _strict() -> Finding:
    try:
        line = choose_sandbox("strict")[1]
    except InputError as error:
        what, _, fix = str(error).removeprefix("--sandbox ").rpartition("; ")
        return Finding("sandbox", "note", what, fix)
    return Finding("sandbox", "ok", f"--sandbox strict: {line.removeprefix('sandbox: ')}")


def _sandbox_remedy(name: str) -> str:
    if name == "landlock":
        return "use Linux 5.13 or newer with Landlock switched on (lsm=...,landlock), or bubblewrap"
    if shutil.which("bwrap") is None:
        return "install it: apt install bubblewrap, or dnf install bubblewrap"
    return (
        "allow user namespaces on this system, or to this container; Landlock is used meanwhile if it works"
    )
