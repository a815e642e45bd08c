"""Build the table of priors: which heads win on which datasets, by a search on frozen backbones.

    python benchmarks/priors.py --data DIR [--seconds N] [--quick] [--only NAME ...]
        [--exclude NAME ...] [--table FILE] [--json FILE]

DIR holds datasets in Meta-Album layout; N is seconds per dataset. The table is `autometa/priors.json` unless named;
rows of datasets that are not in DIR are kept, except those of `--exclude`, so that a benchmark does not profit from
its own dataset. Prints, and writes to `--json`, the accuracy of the best candidate and of the first one for each
dataset.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _learner_report import Report, row
from PIL import Image

from autometa.backbones import View
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.files import write_model
from autometa.core.settings import Settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_set import ValidationSet
from autometa.planning.stage_log import JOURNAL
from autometa.search.priors import TABLE, DatasetPrior, PriorCandidate, Priors, describe_dataset, load_priors
from autometa.systems.autometa import Controller

KEPT = 4
USUAL_S, QUICK_S = 300.0, 20.0
FIRST = View("tf_efficientnet_lite0", 128)
QUICK = {"backbones": (FIRST.backbone,), "resolutions": (FIRST.px,), "validation_episodes": 60}
SPEC = EpisodeSpec(ways=(2, 20), shots=(1, 10), queries_per_class=5)


def read_pool(folder: Path, px: int = 128) -> ImagePool:
    """A dataset in Meta-Album layout."""
    with (folder / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    classes = sorted({row["CATEGORY"] for row in rows})
    files = [folder / "images" / row["FILE_NAME"] for row in rows]
    images = [np.asarray(Image.open(file).convert("RGB").resize((px, px))) for file in files]
    labels = np.array([classes.index(row["CATEGORY"]) for row in rows], dtype=np.int64)
    pixels = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
    return ImagePool(pixels, labels, np.zeros(len(classes), np.int64), (folder.name,))


def say(line: str) -> None:
    """Show a line of the search."""
    print(f"  {line}", flush=True)


def searched(pool: ImagePool, seconds: float, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The journal of a search of so many seconds on frozen backbones without priors; `asked`: other settings."""
    budget = TimeBudget.of(seconds)
    limits = Limits(budget, budget, MemoryBudget.of_machine())
    test = TestSpec(
        tasks=1, episodes=SPEC, images=1, protocol="within-domain"
    )  # no time is reserved for meta-test
    with tempfile.TemporaryDirectory(prefix="priors-") as folder:
        settings = Settings(tune_steps=0, families=(), priors=False, **asked)
        controller = Controller(settings, test, limits, Path(folder), say, start_s=0.0)
        controller.run(pool)
        journal = Path(folder) / JOURNAL
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [row for row in map(json.loads, lines) if row.get("status") == "ok"]


def winners(journal: list[dict[str, Any]], n: int = KEPT) -> tuple[PriorCandidate, ...]:
    """The best `n` of candidates that have an accuracy, without mirrored images, no two with the same head and
    metric."""
    found: dict[tuple[str, str], PriorCandidate] = {}
    for line in sorted(journal, key=lambda line: -line["accuracy"]):
        view, name = View.of(line["view"]), (line["head"], line["params"]["transform"])
        if not view.flip and name not in found:
            found[name] = PriorCandidate(
                head=line["head"],
                params=line["params"],
                backbone=view.backbone,
                px=view.px,
                layers=view.layers,
                accuracy=round(line["accuracy"], 4),
            )
    return tuple(found.values())[:n]


def row_of(folder: Path, seconds: float, asked: dict[str, Any], report: Report) -> DatasetPrior:
    """The result of a search on one dataset, with its features; reports the best and the first accuracy."""
    pool = read_pool(folder)
    few = ValidationSet.small(pool, SPEC, np.random.default_rng(0))
    embedded = BackboneShelf("cpu")(FIRST.backbone).embed(few.images, FIRST.px)
    features = describe_dataset(pool, few, FIRST, embedded)
    rounded = {name: round(value, 4) for name, value in features.items()}
    print(f"{folder.name}: {rounded}", flush=True)
    journal = searched(pool, seconds, asked)
    if journal:
        best = max(line["accuracy"] for line in journal)
        report.add([row(f"priors/{folder.name}/best", 100 * best, "%", 100 * journal[0]["accuracy"])])
    return DatasetPrior(dataset=folder.name, features=rounded, won=winners(journal))


def main() -> None:
    """Search on every dataset, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME", help="datasets of DIR; default: all")
    parser.add_argument("--seconds", type=float, metavar="N", help="per dataset")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_S:.0f} s per dataset on {FIRST} only")
    parser.add_argument("--exclude", nargs="*", default=(), metavar="NAME", help="datasets without a row")
    parser.add_argument("--table", type=Path, default=TABLE, metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    folders = sorted(file.parent for file in options.data.glob("*/labels.csv"))
    wanted = [
        f for f in folders if f.name not in options.exclude and (not options.only or f.name in options.only)
    ]
    seconds = options.seconds or (QUICK_S if options.quick else USUAL_S)
    report = Report(options.json, f"{seconds:.0f} s per dataset", resume=False)
    rows = [row_of(folder, seconds, QUICK if options.quick else {}, report) for folder in wanted]
    old = load_priors(options.table) if options.table.exists() else Priors()
    kept = old.without({*options.exclude, *(one.dataset for one in rows)}).rows
    found = (one for one in rows if one.won)
    table = Priors(rows=tuple(sorted((*kept, *found), key=lambda one: one.dataset)))
    write_model(options.table, table)
    print(f"{options.table}: {', '.join(one.dataset for one in table.rows)}")


if __name__ == "__main__":
    main()
