"""Rows of published tables that were trained again: the achieved figure against the published one.

    python benchmarks/reproduce.py FOLDER... [--json FILE]
    python benchmarks/reproduce.py --quick [--json FILE]

A FOLDER is the output of `autometa reproduce`, or holds several, such as `output/papers`. Rows are
`reproduce/PAPER/ROW`: plain accuracy in %, the mean over the seeds that were trained. What was shortened says nothing
of its paper, so it has no reference. With `--quick`, a row is trained for a few steps on letters of the demo, to
show what comes out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from _learner_report import Report, Row, row

from autometa.core.files import read_versioned
from autometa.papers.paper_data import load_data
from autometa.papers.recipes import NamedRecipe, TestTasks, read_recipe
from autometa.papers.reproduction import Reproduction
from autometa.papers.result import RESULT, Result
from run_local import DEMO

SHOWN, STEPS, TASKS = "maml/omniglot-5way-1shot", 2, 50
PARTS = {"meta-train": slice(22), "meta-valid": slice(22, 29), "meta-test": slice(29, None)}


def find_results(folders: Iterable[Path]) -> list[Result]:
    """The results in these folders and below. SystemExit names a folder without any."""
    found = []
    for folder in folders:
        files = sorted(folder.rglob(RESULT))
        if not files:
            raise SystemExit(f"{folder}: no {RESULT} in it; name the output of autometa reproduce")
        found += [read_versioned(file, Result, "result") for file in files]
    return found


def rows_of(results: Sequence[Result]) -> list[Row]:
    """A row for each recipe; those that were shortened count only where no other of the recipe is there."""
    of_recipe: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        of_recipe[result.recipe].append(result)
    rows = []
    for name, own in sorted(of_recipe.items()):
        whole = [result for result in own if not result.shortened]
        used = whole or own
        achieved = [result.achieved.accuracy for result in used]
        note = f"{used[0].paper}, {used[0].table}; {used[0].steps} steps, {used[0].tasks} tasks"
        note += "" if whole else "; shortened, so not to be compared"
        rows.append(
            row(
                f"reproduce/{name}",
                float(np.mean(achieved)),
                "%",
                used[0].published.accuracy if whole else None,
                ci95=float(np.mean([result.achieved.interval for result in used])),
                seeds=[round(value, 2) for value in achieved],
                note=note,
            )
        )
    return rows


def show_one(folder: Path) -> Result:
    """A few steps of a recipe on the letters of the demo."""
    named, letters = read_recipe(SHOWN), DEMO / "LETTERS"
    names = sorted({line.split(",")[1] for line in (letters / "labels.csv").read_text().splitlines()[1:]})
    split = folder / "split.json"
    split.write_text(json.dumps({part: names[some] for part, some in PARTS.items()}), encoding="utf-8")
    test = TestTasks(ways=5, shots=1, queries=5, tasks=TASKS)
    recipe = named.recipe.model_copy(update={"data": "classes", "test": test})
    data = load_data("classes", letters, recipe.px, split=split)
    shown = Reproduction(NamedRecipe(named.name, recipe), steps=STEPS)
    return shown.run(data, folder / "out", print)


def main() -> None:
    """Parse the command line, read or train, write."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--quick", action="store_true", help="a few steps on letters of the demo: under a minute"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    asked = parser.parse_args()
    if bool(asked.folders) == asked.quick:
        parser.error("name FOLDER, or give --quick")
    with tempfile.TemporaryDirectory(prefix="reproduce-") as scratch:
        results = [show_one(Path(scratch))] if asked.quick else find_results(asked.folders)
    Report(asked.json, "reproduce", resume=False).add(rows_of(results))


if __name__ == "__main__":
    main()
