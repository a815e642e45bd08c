"""A run on many photographs with a cold image cache, then with what the first run has left in it.

python benchmarks/decoding.py --images 100000 --time-budget 120s

It needs about 80 kB of disk for each image beside the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _photos import write_photos

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Write the photographs, run twice, and print what ingestion and scoring say of each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--time-budget", default="60s")
    parser.add_argument("--submission", default="autometa")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="photos-") as folder:
        data = write_photos(Path(folder) / "PHOTOS", asked.classes, asked.images // asked.classes)
        for cache in ("cold", "warm"):
            out = Path(folder) / cache
            options = ["--time-budget", asked.time_budget, "--submission", asked.submission]
            subprocess.run(
                [sys.executable, ROOT / "run_local.py", "--dataset", data, "--output", out, *options],
                env=os.environ | {"AUTOMETA_CACHE_DIR": str(Path(folder) / "cache")},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            report(cache, out)


def report(cache: str, out: Path) -> None:
    """One run: its score, the seconds of its stages, and what was decoded."""
    scores = json.loads((out / "scoring" / "scores.json").read_text())
    record = json.loads((out / "ingestion" / "ingestion.json").read_text())
    stages = ", ".join(f"{stage['name']} {stage['seconds']:.1f} s" for stage in record["stages"])
    accuracy, interval = scores["normalized_accuracy"], scores["normalized_accuracy_ci95"]
    print(f"{cache} cache: normalised accuracy {100 * accuracy:.1f} ± {100 * interval:.1f}, {stages}")
    print(f"  tasks without an answer: {scores['tasks_missing']:.0f} of {scores['tasks']:.0f}")
    for note in record["notes"]:
        if "image" in note:
            print(f"  {note}")


if __name__ == "__main__":
    main()
