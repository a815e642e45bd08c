"""Attacks on the results: writes through links and paths, and folders that it puts in the place of others."""

from __future__ import annotations

import os
from pathlib import Path

from reporting import GIVEN, Attack

MODEL = Path(os.environ["METADL_MODEL_DIR"])
OUTPUT = Path(GIVEN["output"])
RESULTS = ("task_1.predict", "task_2.predict", "truth.json", "ingestion.json", "submission.log", ".reserve")


def write_results() -> object:
    """By their path, beside its own folders, and by a link."""
    done = []
    Path("out").symlink_to(OUTPUT)
    for name in RESULTS:
        for file in (
            OUTPUT / name,
            MODEL / ".." / name,
            MODEL.parent / "logs" / ".." / name,
            Path("out", name),
        ):
            try:
                with file.open("r+b") as stream:
                    stream.write(b"0")
            except OSError:
                continue
            done.append(str(file))
    return done


def make_results() -> object:
    """Where there is none yet: the run would find its place taken."""
    done = []
    for name in ("task_4.predict", ".task_4.predict.1", "run.json", "samples.json"):
        try:
            (OUTPUT / name).touch(exist_ok=False)
        except OSError:
            continue
        done.append(name)
    return done if MODEL.parent.samefile(OUTPUT) and is_real(OUTPUT) else []


def is_real(folder: Path) -> bool:
    """Whether a folder is that of the test; in a sandbox one of that name may hold its own folders alone."""
    return (folder / "truth.json").exists() or (folder / "submission.log").exists()


def remove_results() -> object:
    done = []
    for name in RESULTS:
        try:
            (OUTPUT / name).unlink()
        except OSError:
            continue
        done.append(name)
    return done


def replace_own_folders() -> object:
    """The model and log folders, by links to the results."""
    done = []
    for folder in (MODEL, MODEL.parent / "logs"):
        try:
            folder.rename(folder.with_name("moved"))
            folder.symlink_to(OUTPUT)
        except OSError:
            continue
        done.append(str(folder))
    return done


def write_outside() -> object:
    """In the folder of the test, by a link in each folder that it may write to."""
    done = []
    for folder in (MODEL, MODEL.parent / "logs", Path()):
        link = folder / "outside"
        link.unlink(missing_ok=True)
        link.symlink_to(GIVEN["outside"])
        try:
            (link / "written").write_text("hostile")
        except OSError:
            continue
        done.append(str(folder))
    return done


def leave_traps() -> None:
    """What ingestion reads after the run is a link to the truth, and a pipe; folders lead to themselves and away."""
    (MODEL / "stages.json").symlink_to(OUTPUT / "truth.json")
    os.mkfifo(MODEL / "choices.json")
    for name, target in (("self", "self"), ("root", "/"), ("dangling", "nowhere")):
        (MODEL / name).symlink_to(target)
        (MODEL.parent / "logs" / name).symlink_to(target)


ATTACKS: dict[str, Attack] = {
    "results written": write_results,
    "results made": make_results,
    "results removed": remove_results,
    "own folders replaced": replace_own_folders,
    "outside by a link": write_outside,
}
