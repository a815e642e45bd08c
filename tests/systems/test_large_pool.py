"""A pool that is larger than the memory budget: the run works from the memory map, and learns from a share of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autometa.core.budget import MemoryBudget, own_bytes
from autometa.data.images import ImagePool
from autometa.search.prices import FEATURE_BYTES, VIEW_BYTES, most_images

ROOT = Path(__file__).parents[2]
ROOM = VIEW_BYTES + 400 * 2**20
"""Bytes that a run may use beyond what it holds at its start."""
IMAGES, PX = 12_000, 224

RUN = """
import json, sys, threading, time
from pathlib import Path
import numpy as np
import autometa.backbones.build as build
from autometa.backbones import CATALOGUE, BackboneSpec
from autometa.core import machine
from autometa.core.budget import UNLIMITED, Limits, MemoryBudget, TimeBudget, own_bytes
from autometa.core.settings import Settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.pool import collect_pool
from autometa.data.test_spec import TestSpec
from autometa.systems.autometa import Controller
from ingestion.generators import TrainingSet

folder, room, n, px = Path(sys.argv[1]), *map(int, sys.argv[2:])
machine._find_device = lambda: "cpu"
CATALOGUE["tiny"] = BackboneSpec("tiny", "test_resnet", 0.5, 64, "none")
build.load_pretrained = lambda spec, model: None


def held():
    # what the budget counts: pages that the kernel cannot take back and read again from a file
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


images = np.memmap(folder / "images", np.uint8, "r", 0, (n, 3, px, px))
given = TrainingSet("large", images, np.arange(n) % 40)
lines, peaks, start = [], [], held()
threading.Thread(target=lambda: [(peaks.append(held()), time.sleep(0.02)) for _ in iter(int, 1)], daemon=True).start()
memory, budget = MemoryBudget(own_bytes() + room), TimeBudget.of(40)
pool = collect_pool(type("G", (), {"image_sets": (given,)})(), UNLIMITED, memory, lines.append)
settings = Settings(
    backbones=("tiny",), resolutions=(32,), validation_episodes=20, max_trials=2, tune_steps=0, families=()
)
test = TestSpec(20, EpisodeSpec((2, 4), (1, 5), 3), 100, "within-domain")
run = Controller(settings, test, Limits(budget, budget, memory), folder / "model", lines.append, 1.0)
run._forecast.image_s = lambda view: 1e-6  # time is no limit
learner = run.run(pool)
told = next(line for line in lines if "images are learned from" in line)
print(json.dumps({"grown": max(peaks) - start, "mapped": bool(np.shares_memory(pool.images, images)),
                  "learned": int(told.split()[0]), "kind": type(learner).__name__}))
"""


def test_memory_limits_how_many_images_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryBudget, "is_small", False)
    pool = ImagePool(np.zeros((1000, 3, 8, 8), np.uint8), np.arange(1000) % 4, np.zeros(4, np.int64), ("a",))
    held = own_bytes() + VIEW_BYTES
    assert most_images(MemoryBudget(held + 2**30), pool) == 1000
    some = most_images(MemoryBudget(held + 500 * FEATURE_BYTES * 4), pool)
    assert 0 < some < 600
    assert most_images(MemoryBudget(held - 2**26), pool) == 0
    monkeypatch.setattr(MemoryBudget, "is_small", True)  # then images lie in a file
    assert most_images(MemoryBudget(held - 2**26), pool) == 1000


@pytest.mark.medium
@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells what a process holds"
)
def test_a_pool_larger_than_the_memory_budget_stays_in_its_file(tmp_path: Path) -> None:
    size = IMAGES * 3 * PX**2
    assert size > 2 * ROOM
    images = np.memmap(tmp_path / "images", np.uint8, "w+", 0, (IMAGES, 3, PX, PX))
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (40, 3), np.uint8)
    for number in range(IMAGES):  # a little of each image, as the rest of the file takes no space on disk
        images[number, :, :4] = colours[number % 40][:, None, None]
        images[number, 0, 0] = rng.integers(0, 256, PX, np.uint8)
    images.flush()
    del images
    (tmp_path / "model").mkdir()
    command = [sys.executable, "-c", RUN, str(tmp_path), str(ROOM), str(IMAGES), str(PX)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["mapped"] and found["kind"] == "Portfolio"
    assert 100 < found["learned"] <= IMAGES
    assert found["grown"] < ROOM < size
