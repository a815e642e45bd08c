"""A run on many photographs with a cold image cache, then with what the first run has left in it.

    python benchmarks/decoding.py [--images N] [--time-budget 120s] [--quick] [--json FILE]

It needs about 80 kB of disk for each image beside the cache. Accuracies are normalised, in percent; a run with the
warm cache is compared with the one before, with the cold cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _learner_report import Report, Row, row
from _photos import write_photos

ROOT = Path(__file__).resolve().parents[1]
QUICK = {"images": 1500, "time_budget": "20s", "submission": "prototypical"}


def main() -> None:
    """Write the photographs, run twice, and print what ingestion and scoring say of each run."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--time-budget", default="60s")
    parser.add_argument("--submission", default="autometa")
    parser.add_argument("--quick", action="store_true", help="1,500 images and 20 s for each run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    asked = parser.parse_args()
    for name, value in (QUICK if asked.quick else {}).items():
        setattr(asked, name, value)
    report = Report(
        asked.json, f"{asked.images} images, {asked.time_budget}, {asked.submission}", resume=False
    )
    cold: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="photos-") as folder:
        data = write_photos(Path(folder) / "PHOTOS", asked.classes, asked.images // asked.classes)
        for cache in ("cold", "warm"):
            out = Path(folder) / cache
            options = ["--time-budget", asked.time_budget, "--submission", asked.submission]
            options += ["--image-size", "128"]
            subprocess.run(
                [sys.executable, ROOT / "run_local.py", "--dataset", data, "--output", out, *options],
                env=os.environ | {"AUTOMETA_CACHE_DIR": str(Path(folder) / "cache")},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            rows = rows_of(cache, out, cold)
            cold = {one["name"].rpartition("/")[2]: one["value"] for one in rows}
            report.add(rows)


def rows_of(cache: str, out: Path, before: dict[str, float]) -> list[Row]:
    """One run: its accuracy, tasks without an answer, and the seconds of its stages."""
    scores = json.loads((out / "scoring" / "scores.json").read_text())
    record = json.loads((out / "ingestion" / "ingestion.json").read_text())
    for note in record["notes"]:
        if "image" in note:
            print(f"  {note}")
    values = {
        "accuracy": (100 * scores["normalized_accuracy"], "%"),
        "unanswered": (scores["tasks_missing"], "tasks"),
    }
    values |= {f"{stage['name']}_s": (stage["seconds"], "s") for stage in record["stages"]}
    return [
        row(f"decoding/{cache}/{name}", value, unit, before.get(name))
        for name, (value, unit) in values.items()
    ]


if __name__ == "__main__":
    main()
