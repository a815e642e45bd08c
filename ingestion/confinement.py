"""What keeps a submission to itself here: files, network, processes, memory, and by what each is done."""

from __future__ import annotations

import functools
import sys
from dataclasses import asdict, dataclass

from ingestion.errors import InputError
from ingestion.landlocked import NETWORK_VERSION, SCOPES_VERSION, landlock_version
from ingestion.seccomp import seccomp_trouble

OPEN = "open"
TRUNCATE_VERSION = 3
"""The version of Landlock (Linux 6.2) that also stops a submission from shortening files by their name."""


@dataclass(frozen=True)
class Confinement:
    """For people, by what each part of a machine is kept from a submission; it begins with `open` where it is not.
    `tasks`: what keeps a task of meta-test from the next."""

    files: str
    network: str
    processes: str
    memory: str
    system_calls: str
    tasks: str

    def to_json(self) -> dict[str, str]:
        """The same for the record of a run."""
        return asdict(self)


@functools.cache
def landlock_trouble() -> str:
    """Why there is no Landlock here, or ""."""
    try:
        landlock_version()
    except OSError as error:
        return f"no Landlock here ({error.strerror}), it needs Linux 5.13 or newer with Landlock switched on"
    return ""


def landlock_abi() -> int:
    """The version of Landlock in this kernel, 0 without it."""
    return 0 if landlock_trouble() else landlock_version()


def is_offline(sandbox: str) -> bool:
    """Whether a submission has no network."""
    return sandbox == "bubblewrap" or (sandbox == "landlock" and not seccomp_trouble())


def describe_confinement(
    sandbox: str, *, sealed: bool = False, limits_memory: bool = True, isolates_tasks: bool = False
) -> Confinement:
    """What confines a submission in this sandbox (`Access.sealed`), with a memory budget or without."""
    if sandbox == "bubblewrap":
        files, network, processes = _of_bubblewrap()
    elif sandbox == "landlock":
        files, network, processes = _of_landlock(sealed=sealed)
    else:
        files, network, processes = f"{OPEN}: all that you can read and write", OPEN, f"{OPEN}: all of yours"
    trouble = seccomp_trouble()
    filtered = sandbox != "none" and not trouble
    tasks = "a process for each, which can write only to its scratch folder"
    return Confinement(
        files,
        network,
        processes,
        _of_memory(limits_memory=limits_memory),
        "seccomp" if filtered else OPEN if sandbox == "none" else f"{OPEN}: {trouble}",
        tasks if isolates_tasks else f"{OPEN}: one process for all",
    )


def _of_bubblewrap() -> tuple[str, str, str]:
    return (
        "bubblewrap, own file system",
        "bubblewrap, own network that leads nowhere",
        "bubblewrap, own table",
    )


def _of_landlock(*, sealed: bool) -> tuple[str, str, str]:
    version = landlock_abi()
    files = "Landlock" + (" and seccomp, also permissions and times" if sealed else "")
    if version < TRUNCATE_VERSION:
        files += "; open before Linux 6.2: yours can be emptied"
    if not seccomp_trouble():
        network = "seccomp, no sockets" + ("" if sealed else " but those with a path")
    elif version >= NETWORK_VERSION:
        network = f"{OPEN}: UDP; Landlock refuses TCP"
    else:
        network = OPEN
    scoped = version >= SCOPES_VERSION
    processes = "Landlock; their ids can be seen" if scoped else f"{OPEN} before Linux 6.12: signals"
    return files, network, processes


def _of_memory(*, limits_memory: bool) -> str:
    if not limits_memory:
        return f"{OPEN}: no memory budget"
    counted = "all kinds" if sys.platform == "linux" else "private memory only"
    return f"looked at five times a second, {counted}"


def landlock_lacks() -> str:
    """What a submission under Landlock can still do here, for people: nothing, or words that begin with a
    semicolon."""
    version, trouble = landlock_abi(), seccomp_trouble()
    lacks = []
    if trouble:
        lacks.append(f"{'UDP' if version >= NETWORK_VERSION else 'the network'} stays open: {trouble}")
    if version < SCOPES_VERSION:
        lacks.append("before Linux 6.12 it can signal your processes")
    if version < TRUNCATE_VERSION:
        lacks.append("before Linux 6.2 it can empty your files")
    return "".join(f"; {lack}" for lack in lacks)


def strict_trouble(bubblewrap: str) -> tuple[str, str]:
    """The sandbox that confines everything, `bubblewrap` first if nothing troubles it, and why none does, of which
    one is ""."""
    if trouble := seccomp_trouble():
        return "", trouble
    if not bubblewrap:
        return "bubblewrap", ""
    if trouble := landlock_trouble():
        return "", f"{bubblewrap}, and {trouble}"
    if (version := landlock_abi()) < SCOPES_VERSION:
        return (
            "",
            f"{bubblewrap}, and Landlock keeps signals within only from Linux 6.12 (version {version} here)",
        )
    return "landlock", ""


def check_memory_is_limited(memory_bytes: int | None) -> None:
    """InputError where a strict sandbox has no budget of memory, or cannot count it."""
    if memory_bytes is None:
        raise InputError(
            "--sandbox strict: memory is not limited; give --memory-budget (--memory_budget_bytes)"
        )


def isolation_trouble(sandbox: str) -> str:
    """Why tasks of meta-test cannot be kept from each other in this sandbox, or ""."""
    if sandbox == "none":
        return "without a sandbox a submission can leave notes anywhere on the disk"
    if trouble := seccomp_trouble():
        return trouble
    if sandbox == "landlock" and (version := landlock_abi()) < SCOPES_VERSION:
        return f"Landlock keeps processes apart only from Linux 6.12 (version {version} here), without bubblewrap"
    return ""
