"""Accuracy by instance number when labels come one step late, of MANN and of an LSTM without a memory, on the same
episodes of held-out classes.

    python benchmarks/mann.py [--quick] [--json FILE] [--data DIR] [--iterations N] [--seed N]

Training and test are those of `examples/mann_instances.py`. Rows `mann/instance_<i>`: accuracy in % at the
i-th image of a class (20 % is chance), the LSTM's as the reference.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from _learner_report import Report, row

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import mann_instances as example


def main() -> None:
    """Train both, then print or write a row for each instance number."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=example.LETTERS, help="default: %(default)s")
    parser.add_argument("--iterations", type=int, default=example.DEFAULT, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help=f"{example.QUICK} iterations")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    iterations = example.QUICK if given.quick else given.iterations
    torch.set_num_threads(1)  # more threads do not help with steps this small
    found = example.compared(given.data, iterations, given.seed)
    report = Report(given.json, f"{given.data.name}, {iterations} iterations", resume=False)
    (mann, lstm), widths = (
        (100 * found[memory].mean(0) for memory in (True, False)),
        100 * example.interval(found[True]),
    )
    for number, (ours, alone, width) in enumerate(zip(mann, lstm, widths, strict=True), start=1):
        report.add([row(f"mann/instance_{number}", float(ours), "%", float(alone), ci95=float(width))])


if __name__ == "__main__":
    main()
