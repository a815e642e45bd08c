"""A run of a judging on another machine: what it is sent, and what it sends back."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from autometa import __version__
from autometa.core.errors import ConfigError
from autometa.core.fingerprints import fingerprint
from autometa.judging.images import fill_cache
from autometa.judging.ledger import Row
from autometa.judging.options import JudgeOptions
from autometa.judging.runs import RunPlayer, run_folder
from autometa.judging.submissions import Unit
from autometa.judging.travel import pack, unpack
from ingestion.disk import remove

DECODED, LOCK = "decoded", "lock"
"""In the folder of a judging on a machine: where the dataset is whose images its cache has, and who looks at them
now."""


@dataclass(frozen=True)
class Job:
    """What all runs of a judging have in common. `dataset`: where it is on the machine of the judge, with its
    `fingerprint`; `token`: names the judging; `threads`: processors of a run."""

    token: str
    dataset: Path
    fingerprint: str
    options: JudgeOptions
    memory_bytes: int
    threads: int
    task_images: int
    version: str = __version__


@dataclass(frozen=True)
class Played:
    """A run that is done, on machine `node`: its row (None: it was stopped there) and its `files` as `pack` packs
    them. `lacks_dataset`: nothing was done, as the machine needs the dataset first."""

    node: str
    row: Row | None = None
    files: bytes | None = None
    lacks_dataset: bool = False


def play_as_guest(job: Job, unit: Unit, bundle: bytes, dataset: bytes | None) -> Played:
    """Do a run here, with the dataset that is here, or with the one that was sent. Its images are decoded before the
    first run of the judging on this machine. ConfigError where another version of autometa is here."""
    node = socket.gethostname()
    if job.version != __version__:
        raise ConfigError(
            f"machine {node}: has autometa {__version__}, the judge has {job.version}; install the same there"
        )
    folder = place_of(job.token)
    with locked(folder):
        source = _prepared_dataset(job, folder, dataset)
    if source is None:
        return Played(node, lacks_dataset=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as scratch:
        path = Path(scratch) / "bundle"
        unpack(bundle, path)
        only = list(path.iterdir())
        if len(only) == 1 and only[0].suffix == ".zip":
            path = only[0]
        own = replace(unit, submission=replace(unit.submission, path=path))
        threads = {"OMP_NUM_THREADS": str(job.threads)}
        player = RunPlayer(Path(scratch), source, job.options, job.memory_bytes, variables=threads)
        row = player.play(own)
        output = run_folder(Path(scratch), unit.submission.name, unit.seed)
        return Played(node, row, pack(output.parent))


def place_of(token: str) -> Path:
    """The folder of a judging on this machine."""
    return Path(tempfile.gettempdir()) / f"autometa-judging-{token}"


def forget(token: str) -> None:
    """Delete what a judging has left on this machine."""
    remove(place_of(token))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process of this machine at a time; the kernel opens the lock of a process that is killed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _find_dataset(job: Job, folder: Path, sent: bytes | None) -> Path | None:
    """Where the dataset of the judging is here."""
    copy = folder / "dataset" / job.dataset.name
    for path in (job.dataset, copy):
        if fingerprint(path) == job.fingerprint:
            return path
    if sent is None:
        return None
    partial = copy.with_name(f"{copy.name}.partial-{os.getpid()}")
    unpack(sent, partial)
    remove(copy)
    partial.rename(copy)
    return copy


def _prepared_dataset(job: Job, folder: Path, sent: bytes | None) -> Path | None:
    """Where the dataset of the judging is here, its images decoded; looked for and decoded before the first run."""
    known = folder / DECODED
    if known.exists():
        return Path(known.read_text(encoding="utf-8"))
    source = _find_dataset(job, folder, sent)
    if source is None:
        return None
    options = job.options
    fill_cache(
        source,
        options.image_size,
        options.image_shape,
        task_images=job.task_images,
        memory_bytes=job.memory_bytes,
    )
    known.write_text(str(source), encoding="utf-8")
    return source
