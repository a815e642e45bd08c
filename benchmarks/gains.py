"""What purchases of the controller gain, against what was expected of them.

    python benchmarks/gains.py [--data DIR] [--datasets A,B] [--seconds N] [--quick] [--json FILE]

DIR holds datasets in Meta-Album layout; N is seconds per dataset. `Controller` meta-trains in this process on all
classes of each dataset, without time reserved for meta-test. Gains are points of normalised accuracy on held-out
classes, as the receipts in the journal tell.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _learner_data import choose_datasets, load
from _learner_report import Report, row

from autometa.core import journals
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.settings import Settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.data.test_spec import TestSpec
from autometa.planning.stage_log import JOURNAL
from autometa.systems.autometa import Controller

DEMO = Path(__file__).parents[1] / "examples" / "demo"
USUAL_S, QUICK_S = 300.0, 40.0
TEST = TestSpec(
    tasks=1,
    episodes=EpisodeSpec(ways=(2, 20), shots=(1, 10), queries_per_class=5),
    images=1,
    protocol="within-domain",
)
KINDS = ("view", "turned", "trained")
Purchase = dict[str, Any]


def say(line: str) -> None:
    """Show a line of the run."""
    print(f"  {line}", flush=True)


def purchases_of(pool: ImagePool, seconds: float) -> list[Purchase]:
    """Receipts with a measured gain from a run of so many seconds."""
    budget = TimeBudget.of(seconds)
    limits = Limits(budget, budget, MemoryBudget.of_machine())
    with tempfile.TemporaryDirectory(prefix="gains-") as folder:
        Controller(Settings(), TEST, limits, Path(folder), say, start_s=0.0).run(pool)
        records = journals.read(Path(folder) / JOURNAL)
    return [record for record in records if record.get("gain") is not None and "purchase" in record]


def print_table(found: Sequence[Purchase]) -> None:
    """Means by kind and by purchase."""
    print(f"{'purchase':<56} {'gain':>6} {'expected':>8} {'seconds':>7} {'times':>5}")
    for kind in KINDS:
        by_name: dict[str, list[Purchase]] = defaultdict(list)
        for one in found:
            if one["kind"] == kind:
                by_name[one["purchase"]].append(one)
        if by_name:
            print_line(f"all of kind {kind}", [one for group in by_name.values() for one in group])
        for name, group in sorted(by_name.items()):
            print_line(f"  {name}", group)


def print_line(name: str, group: Sequence[Purchase]) -> None:
    """Means of some purchases."""
    gain, expected = 100 * mean_of(group, "gain"), 100 * mean_of(group, "expected")
    print(f"{name:<56} {gain:>+6.2f} {expected:>8.2f} {mean_of(group, 'seconds'):>7.1f} {len(group):>5}")


def mean_of(group: Iterable[Purchase], name: str) -> float:
    """Mean of a number that all purchases have."""
    return float(np.mean([one[name] for one in group]))


def report_kinds(found: Sequence[Purchase], report: Report) -> None:
    """A row for each kind of purchase."""
    for kind in KINDS:
        group = [one for one in found if one["kind"] == kind]
        if group:
            report.add(
                [
                    row(
                        f"controller/gain_per_purchase/{kind}",
                        100 * mean_of(group, "gain"),
                        "points",
                        100 * mean_of(group, "expected"),
                        seconds=mean_of(group, "seconds"),
                        purchases=len(group),
                    )
                ]
            )


def main() -> None:
    """Run on every dataset that the arguments ask for, then print the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument(
        "--data", type=Path, default=DEMO, metavar="DIR", help="datasets; the demo by default"
    )
    parser.add_argument("--datasets", help="names, comma-separated; all by default")
    parser.add_argument("--seconds", type=float, metavar="N", help=f"per dataset; {USUAL_S:.0f} by default")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_S:.0f} s on one dataset")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    options = parser.parse_args()
    chosen = choose_datasets(options.data, options.datasets)
    seconds = options.seconds or (QUICK_S if options.quick else USUAL_S)
    report = Report(options.json, f"{seconds:.0f} s per dataset", resume=False)
    found: list[Purchase] = []
    for folder in chosen[:1] if options.quick else chosen:
        print(folder.name, flush=True)
        found += purchases_of(load(folder).pool, seconds)
    print_table(found)
    report_kinds(found, report)


if __name__ == "__main__":
    main()
