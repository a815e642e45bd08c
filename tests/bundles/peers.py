"""The programs of the original challenge, where the variable `AUTOMETA_PEERS` names a folder with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic import write_meta_album

ROOT = Path(__file__).parents[2]
TASKS, PX, SEED = 3, 32, 93


def original_folder() -> Path:
    """The folder `cd-metadl`; skips the test where there is none."""
    named = os.environ.get("AUTOMETA_PEERS")
    if not named or not (Path(named) / "cd-metadl").is_dir():
        pytest.skip("AUTOMETA_PEERS names no folder with cd-metadl, the original programs")
    return Path(named) / "cd-metadl"


def write_root(folder: Path, images: int = 24) -> Path:
    """A small MetaDL root: the original needs more than 20 images of every class."""
    for name in ("ALPHA", "BETA"):
        write_meta_album(folder / name, [images] * 6)
    (folder / "info").mkdir()
    splits = {"meta-train": ["ALPHA"], "meta-test": ["BETA"]}
    (folder / "info" / "meta_splits.txt").write_text(json.dumps(splits))
    return folder


def with_api(bundle: Path) -> Path:
    """The bundle with an `api.py`, which the original demands."""
    shutil.copyfile(ROOT / "ingestion" / "api.py", bundle / "api.py")
    return bundle


def run_original(original: Path, root: Path, bundle: Path, output: Path) -> None:
    """The original ingestion program, unchanged."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("METADL")}
    path = os.pathsep.join(filter(None, [str(original), os.environ.get("PYTHONPATH")]))
    flags = [f"--input_data_dir={root}", f"--submission_dir={bundle}", f"--output_dir_ingestion={output}"]
    flags += [f"--test_tasks_per_dataset={TASKS}", f"--image_size={PX}", f"--seed={SEED}"]
    done = subprocess.run(
        [sys.executable, "-m", "cdmetadl.ingestion.ingestion", *flags],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named" in done.stderr and "model" not in done.stderr:
        pytest.skip(f"what the original imports is not installed: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def answers(output: Path) -> list[list[int]]:
    """The classes that a run chose, for each task."""
    files = [output / f"task_{number}.predict" for number in range(1, TASKS + 1)]
    return [np.loadtxt(file, ndmin=2).argmax(1).tolist() for file in files]
