"""A stand-in for a run: plays tasks with a small head on random features and leaves the files of a run. It takes the
options of `autometa run`, and fails in the way that `fails.json` of its submission names for its seed.

The tasks depend on the seed alone, the skill of a submission on the file `skill` in its folder.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

KINDS = (
    "crash in meta_fit", "crash in predict", "hang", "memory", "bad predictions", "killed run", "full disk",
)  # fmt: skip
"""Ways to fail."""
WHOLE = frozenset(KINDS) - {"crash in predict"}
"""Those after which no task is answered; the other one loses a tenth of them."""
MOST_BYTES = 2**31
"""Address space of a stand-in; one that fails for memory asks for more."""
WAYS, SHOTS, QUERIES, FEATURES = 5, 2, 4, 8


def accuracies(seed: int, skill: float, tasks: int) -> list[float]:
    """Normalised accuracy of the nearest class mean on every task: classes are `skill` apart."""
    rng, found = np.random.default_rng(seed), []
    labels = np.repeat(np.arange(WAYS), QUERIES)
    for _ in range(tasks):
        means = skill * rng.normal(size=(WAYS, FEATURES))
        support = means[:, None] + rng.normal(size=(WAYS, SHOTS, FEATURES))
        query = means[labels] + rng.normal(size=(len(labels), FEATURES))
        distances = ((query[:, None] - support.mean(1)[None]) ** 2).sum(-1)
        accuracy = float((distances.argmin(1) == labels).mean())
        found.append((accuracy - 1 / WAYS) / (1 - 1 / WAYS))
    return found


def fail(kind: str) -> None:
    """Fail in one of the ways that leave no files."""
    if kind == "crash in meta_fit":
        sys.exit("ValueError: in meta_fit, on purpose")
    if kind == "hang":
        time.sleep(3600)
    if kind == "killed run":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        np.ones(MOST_BYTES // 8)
    if kind == "full disk":
        with Path("/dev/full").open("w", encoding="utf-8") as disk:
            disk.write("predictions" * 1000)


def write_files(output: Path, seed: int, scores: list[float], lost: Mapping[int, str]) -> None:
    """The files of a run; `lost`: why tasks were not answered, by their place."""
    (output / "ingestion" / "model").mkdir(parents=True)
    (output / "scoring").mkdir()
    (output / "ingestion" / "model" / "learner").write_bytes(bytes(100_000))
    (output / "ingestion" / "truth.json").write_text(json.dumps({"seed": seed, "tasks": len(scores)}))
    record: dict[str, Any] = {"duration_s": 1.0, "machine": {"cores": 1, "gpus": "none"}}
    record["failures"] = {str(place + 1): why for place, why in lost.items()}
    (output / "ingestion" / "ingestion.json").write_text(json.dumps(record))
    tasks = [
        {
            "dataset": "stand-in",
            "status": "malformed" if place in lost else "ok",
            "metrics": {"normalized_accuracy": 0.0 if place in lost else score},
        }
        for place, score in enumerate(scores)
    ]
    (output / "scoring" / "details.json").write_text(json.dumps({"tasks": tasks}))


def main() -> None:
    """Play the tasks of one run, or fail."""
    given = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=True))
    bundle, seed = Path(given["--submission"]), int(given["--seed"])
    kind = json.loads((bundle / "fails.json").read_text()).get(str(seed), "")
    fail(kind)
    scores = accuracies(seed, float((bundle / "skill").read_text()), int(given["--tasks-per-dataset"]))
    lost: dict[int, str] = {}
    if kind == "crash in predict":
        lost = dict.fromkeys(range(0, len(scores), 10), "predict: ValueError: on purpose")
    if kind == "bad predictions":
        lost = dict.fromkeys(range(len(scores)), "predictions hold NaN")
    write_files(Path(given["--output"]), seed, scores, lost)
    sys.exit(int(len(lost) == len(scores)))


if __name__ == "__main__":
    main()
