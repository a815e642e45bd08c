"""Plays the worker of the platform: its folders, mounts and variables, as far as they are known.

Both programs run in containers made by bubblewrap, with the paths that the platform has: mount points that are not
empty and can be neither renamed nor deleted, 64 MB of shared memory, and no bubblewrap inside.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from autometa.bundles.schema import Competition
from autometa.core.settings import load_yaml
from ingestion.access import SYSTEM_FOLDERS, readable_folders

SHARED_MEMORY_BYTES = 64 * 2**20
OF_THE_PLATFORM = "placed-by-the-platform"


@dataclass(frozen=True)
class Container:
    """What one container showed."""

    returncode: int
    log: str
    seconds: float


@dataclass(frozen=True)
class Played:
    """One submission: the predictions that a participant may download, the scores, and both containers."""

    predictions: Path
    scores: Path
    ingestion: Container
    scoring: Container


def play(competition: Path, submission: Path, folder: Path, index: int = 0) -> Played:
    """Unpack a competition and run a submission on one of its tasks."""
    site, code = folder / "competition", folder / "submission"
    for archive, target in ((competition, site), (submission, code)):
        with zipfile.ZipFile(archive) as bundle:
            bundle.extractall(target)
    description = load_yaml(site / "competition.yaml", Competition)
    task = description.tasks[index]
    limit_s = description.phases[index].execution_time_limit
    assert task.ingestion_program and task.scoring_program and task.input_data and task.reference_data
    predictions, scores, shared = folder / "predictions", folder / "scores", folder / "shared"
    for mount in (predictions, scores, shared):
        mount.mkdir()
        (mount / OF_THE_PLATFORM).touch()
    ingestion = _run(
        site / task.ingestion_program,
        {
            "output": (predictions, "--bind"),
            "input_data": (site / task.input_data, "--ro-bind"),
            "ingested_program": (code, "--bind"),
        },
        limit_s,
    )
    scoring = _run(
        site / task.scoring_program,
        {
            "output": (scores, "--bind"),
            "input/ref": (site / task.reference_data, "--ro-bind"),
            "input/res": (predictions, "--ro-bind"),
            "shared": (shared, "--bind"),
        },
        limit_s,
    )
    return Played(predictions, scores, ingestion, scoring)


def _run(program: Path, mounts: dict[str, tuple[Path, str]], limit_s: int) -> Container:
    line = (program / "metadata.yaml").read_text().removeprefix("command:").strip()
    places = {
        "$input": "/app/input_data",
        "$output": "/app/output",
        "$submission_program": "/app/ingested_program",
    }
    command = [places.get(word, word) for word in shlex.split(line)]  # no shell
    began = time.monotonic()
    done = subprocess.run(
        [*_container(program, mounts), *command], capture_output=True, text=True, timeout=limit_s, check=False
    )
    return Container(done.returncode, done.stdout + done.stderr, time.monotonic() - began)


def _is_of_this_checkout(folder: Path) -> bool:
    """Whether a folder holds the programs of this checkout, since a platform has its own. An environment may lie in
    it, too: that one is needed."""
    in_environment = folder.resolve().is_relative_to(Path(sys.prefix).resolve())
    return not in_environment and folder.resolve().is_relative_to(Path(__file__).resolve().parents[2])


def _container(program: Path, mounts: dict[str, tuple[Path, str]]) -> list[str]:
    base = ["bwrap", "--die-with-parent", "--unshare-pid", "--proc", "/proc", "--dev", "/dev"]
    base += ["--size", str(SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm", "--tmpfs", "/tmp", "--dir", "/root"]
    for system in SYSTEM_FOLDERS:
        if Path(system).is_symlink():
            base += ["--symlink", str(Path(system).readlink()), system]
        elif Path(system).exists():
            base += ["--ro-bind", system, system]
    for needed in readable_folders():
        if str(needed) not in SYSTEM_FOLDERS and not _is_of_this_checkout(needed):
            base += ["--ro-bind", str(needed), str(needed)]
    base += ["--ro-bind", "/dev/null", "/usr/bin/bwrap"]  # as under Docker, where it does not work
    base += ["--bind", str(program), "/app/program"]
    for name, (source, kind) in mounts.items():
        base += [kind, str(source), f"/app/{name}"]
    python = str(Path(sys.executable).parent)
    variables = {"PATH": f"{python}:/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "PYTHONUNBUFFERED": "1"}
    if "OMP_NUM_THREADS" in os.environ:
        variables["OMP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
    base += ["--clearenv", *(word for pair in variables.items() for word in ("--setenv", *pair))]
    return [*base, "--chdir", "/app/program"]
