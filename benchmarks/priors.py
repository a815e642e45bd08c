"""Whether what views gained on like datasets helps to choose what to buy: measured with each dataset left out.

    python benchmarks/priors.py --data DIR [--cache DIR] [--quick] [--json FILE] [--table FILE]

DIR holds datasets in Meta-Album layout. Up to 40 classes of each, with up to 10 images a class, are embedded by the
backbones that come in packages at several sizes (kept in `--cache`). Two class splits of each dataset, and a third
with few classes, say what each view answers alone and what it adds to the first one. Then purchases are simulated at
budgets equal to 30, 60 and 120 s on two cores, with the expected gains of `purchases.py` and with those of splits of
*other* datasets that are alike by descriptors. Both arms pay the same seconds; the result is the accuracy on test
classes. `--table FILE` writes all measurements.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _image_contents import fingerprints, group_versions
from _learner_data import choose_datasets
from _learner_report import Report, row
from _prior_data import list_views, read_sample
from _prior_splits import Split

from autometa.backbones import View, find_spec, work_of
from autometa.evaluation.accuracy import interval95, paired_gain
from autometa.search.draft import SOFTNESS
from autometa.search.purchases import USUAL_ERROR, Gains, Purchase, distinctness, relative_weight
from autometa.search.weighing import soft_weights

CLASSES, PER_CLASS, QUICK_CLASSES = 40, 10, 16
SEEDS = ((0, False), (1, False), (2, True))
"""Of splits, and whether they have few classes."""
BUDGETS = (30, 60, 120)
SEARCH_SHARE, FIRST_VIEW_S, PROBE_S = 0.4, 4.0, 2.0
"""Of a budget: what can be spent on views; seconds that the first view takes on a dataset of usual size, and those
that a further network takes besides its images."""
WIDTH, DOUBT = 1.5, 1.0
"""Distance in standardised descriptors at which a split says little of another; how many alike splits' worth the mean
over all datasets counts."""

Measurements = dict[str, Any]


def measure(split: Split, views: Sequence[View]) -> Measurements:
    """What the views answer alone on the test of a split, and what each adds to the first."""
    first = views[0]
    alone = {view: split.accuracy({view: 1.0}, "test") for view in views}
    both = {view: split.accuracy({first: 1.0, view: 1.0}, "test") for view in views[1:]}
    return {
        "group": split.group,
        "dataset": split.sample.name,
        "seed": split.seed,
        "few": split.few,
        "digests": sorted(split.sample.digests),
        "descriptors": split.descriptors(first),
        "alone": {str(view): round(value, 4) for view, value in alone.items()},
        "gains": {str(view): round(value - alone[first], 4) for view, value in both.items()},
    }


@dataclass
class Priors:
    """Expected gains of views beside the first one, from splits of datasets other than that of `split`."""

    table: Sequence[Measurements]
    own: Measurements
    nearest: bool = True

    def gain(self, view: View) -> float | None:
        """Of a view; None where no other dataset has it."""
        others = [one for one in self.table if self._is_other(one) and str(view) in one["gains"]]
        if not others:
            return None
        left = np.array([max(1 - max(one["alone"].values()), 0.01) for one in others])
        gains = np.array([one["gains"][str(view)] for one in others]) / left  # of what there is to gain
        by_group: dict[str, list[float]] = defaultdict(list)
        for one, gain in zip(others, gains, strict=True):
            by_group[one["group"]].append(float(gain))
        overall = float(np.mean([np.mean(values) for values in by_group.values()]))
        if not self.nearest:
            return overall
        weights = self._closeness(others)
        return float((weights @ gains + DOUBT * overall) / (weights.sum() + DOUBT))

    def _is_other(self, one: Measurements) -> bool:
        """Whether a row is of another dataset: of other pictures, and without a file in common."""
        return one["group"] != self.own["group"] and not set(one["digests"]) & set(self.own["digests"])

    def _closeness(self, others: Sequence[Measurements]) -> np.ndarray[Any, np.dtype[np.float64]]:
        names = list(self.own["descriptors"])
        known = np.array([[one["descriptors"][name] for name in names] for one in others])
        own = np.array([self.own["descriptors"][name] for name in names])
        spread = np.maximum(known.std(0), 1e-6)
        distance = np.sqrt((((known - own) / spread) ** 2).mean(1))
        return np.exp(-0.5 * (distance / (WIDTH / 2)) ** 2)


@dataclass
class PriorGains(Gains):
    """`Gains` whose table for views is that of `Priors`."""

    priors: Callable[[View], float | None] = field(default=lambda _: None)

    def _prior(
        self, purchase: Purchase, weights: Mapping[View, float], accuracies: Mapping[View, float]
    ) -> float:
        gain = self.priors(purchase.view)
        if gain is None:
            return super()._prior(purchase, weights, accuracies)
        relative = relative_weight(purchase.view, accuracies)
        second = max(gain, 0.0) * USUAL_ERROR  # what it would gain as the second view
        return 2 * second * relative * distinctness(purchase.view, weights) / (len(weights) + 1)


def seconds_of(view: View, held: Sequence[View], first: View) -> float:
    """What buying a view takes."""
    work, unit = (work_of(find_spec(one.backbone), one.px) for one in (view, first))
    assert work is not None and unit is not None, f"{view} is counted"
    known = any(one.backbone == view.backbone for one in held)
    return FIRST_VIEW_S * work / unit + (0.0 if known else PROBE_S)


def simulate(split: Split, views: Sequence[View], gains: Gains, seconds: float) -> tuple[float, list[str]]:
    """Accuracy on the test, and what was bought in this order."""
    first = views[0]
    alone = {first: split.accuracy({first: 1.0}, "validation")}
    weights = {first: 1.0}
    left = seconds - FIRST_VIEW_S
    bought: list[str] = []
    while True:
        offers = []
        for view in views:
            price = seconds_of(view, list(weights), first)
            if view not in weights and price <= left:
                expected = gains.expect(Purchase("view", view), weights, alone)
                if expected >= gains.least(alone):
                    offers.append((expected / price, expected, price, view))
        if not offers:
            return split.accuracy(weights, "test"), bought
        _, expected, price, view = max(offers, key=lambda offer: offer[0])
        before = split.scores(weights, "validation")
        alone[view] = split.accuracy({view: 1.0}, "validation")
        soft = soft_weights(np.array([[alone[one]] for one in alone]), SOFTNESS)
        weights = dict(zip(alone, soft.tolist(), strict=True))
        gain, error = paired_gain(split.scores(weights, "validation"), before)
        gains.learn("view", str(view), expected, gain, error)
        left -= price
        bought.append(str(view))


def interval(differences: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """Mean over datasets in points, and the half-width of its 95 % interval."""
    means = 100 * np.array([np.mean(values) for values in differences.values()])
    if len(means) < 2:
        return float(means.mean()), math.inf
    return float(means.mean()), interval95(means)


def compare(
    splits: Sequence[Split], table: Sequence[Measurements], views: Sequence[View], report: Report
) -> None:
    """Simulate both arms everywhere; a row for each budget, and one for all."""
    arms: dict[str, Callable[[int, Measurements], Gains]] = {
        "priors_gain": lambda classes, own: PriorGains(classes, Priors(table, own).gain),
        "overall_gain": lambda classes, own: PriorGains(classes, Priors(table, own, nearest=False).gain),
    }
    found: dict[str, dict[int, dict[str, list[float]]]] = {
        arm: {budget: defaultdict(list) for budget in BUDGETS} for arm in arms
    }
    for split, own in zip(splits, table, strict=True):
        for budget in BUDGETS:
            seconds = SEARCH_SHARE * budget
            plain, order = simulate(split, views, Gains(len(split.train)), seconds)
            line = f"{split.sample.name} {split.seed} {budget} s: without {100 * plain:.1f} {order}"
            for arm, make in arms.items():
                ours, order = simulate(split, views, make(len(split.train), own), seconds)
                found[arm][budget][split.group].append(ours - plain)
                line += f"; {arm} {100 * ours:.1f} {order}"
            print(line, flush=True)
    for arm, by_budget in found.items():
        together: dict[str, list[float]] = defaultdict(list)
        for budget, by_group in by_budget.items():
            for group, values in by_group.items():
                together[group] += values
            gain, width = interval(by_group)
            report.add([row(f"zoo/{arm}/{budget}s", gain, "points", 0.0, ci95=width)])
        gain, width = interval(together)
        note = f"{len(together)} datasets, {len(splits)} splits, each dataset left out in turn"
        report.add([row(f"zoo/{arm}", gain, "points", 0.0, ci95=width, note=note)])


def main() -> None:
    """Embed, measure, simulate, write."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--data", type=Path, required=True, help="folder of datasets in Meta-Album layout")
    parser.add_argument("--datasets", help="names, comma-separated; all by default")
    parser.add_argument("--cache", type=Path, default=Path("output") / "priors", metavar="DIR")
    parser.add_argument(
        "--quick", action="store_true", help="three datasets, few classes, the smallest sizes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write all measurements to this file")
    asked = parser.parse_args()
    folders = choose_datasets(asked.data, asked.datasets)
    views, n_classes = list_views(), CLASSES
    if asked.quick:
        folders, views, n_classes = folders[:3], [view for view in views if view.px <= 128][:3], QUICK_CLASSES
    report = Report(asked.json, f"up to {n_classes} classes of {PER_CLASS} images", resume=False)
    splits, table = [], []
    samples = [read_sample(folder, asked.cache, n_classes, PER_CLASS, views) for folder in folders]
    groups = group_versions({sample.name: fingerprints(sample.pool.images) for sample in samples})
    for sample in samples:
        for seed, few in SEEDS[:1] if asked.quick else SEEDS:
            split = Split(sample, seed, groups[sample.name], few)
            splits.append(split)
            table.append(measure(split, views))
            print(json.dumps(table[-1] | {"digests": len(table[-1]["digests"])}), flush=True)
    if asked.table is not None:
        asked.table.write_text(json.dumps(table, indent=1), encoding="utf-8")
    compare(splits, table, views, report)


if __name__ == "__main__":
    main()
