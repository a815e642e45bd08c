"""What time can buy: views, turned classes, trained copies of backbones; what each costs and may gain."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from autometa.backbones import TUNED, View
from autometa.search.weighing import shrink_gain
from autometa.search.workbench import ORIENTATION_STEPS

Kind = Literal["view", "turned", "trained"]

VIEW_GAIN = 0.03
"""Normalised accuracy that a second view gains times two; the third gains a third of it, and so on."""
TURNED_GAIN = 0.02
"""Of turned classes in all orientations, in all views, where classes are few."""
STEP_SHARE = {2: 0.4, 4: 0.3, 8: 0.3}
"""Share of this that each further step has."""
MANY_CLASSES = 45
"""Classes from which on turned ones are hardly needed."""
TRAINED_GAIN = 0.004
"""Of the first copy that is trained to classify."""
FAMILY_SHARE = 0.4
"""Of a copy that another learner trains, in relation to that."""
FINER_GAIN = 0.01
"""By how much a view of twice the size is expected to be better."""
SOFTNESS = 0.03
"""Of weights by accuracy, see `soft_weights`."""
PRIOR_SPREAD = 0.5
"""Standard deviation of what purchases gain on a dataset, in relation to the table above."""
DISTINCT_SIZES = 1.75
"""Ratio of sizes from which on two views of a network are as different as two networks."""
LEAST_GAIN = 0.0002
"""Normalised accuracy; a purchase that is expected to gain less is not made."""
USUAL_ERROR, LEAST_ERROR = 0.25, 0.01
"""Gains are in proportion to what is left to gain. Those of this table are of datasets where the best view alone
leaves so much; where held-out classes leave less than the latter, other classes may be harder."""


@dataclass(frozen=True)
class Purchase:
    """`view` joins the portfolio (kind `view`), has its metrics fitted to classes in so many `orientations`
    (`turned`), or joins after its network was trained by the learner that its variant names (`trained`)."""

    kind: Kind
    view: View
    orientations: int = 1

    def __str__(self) -> str:
        return f"{self.view} in {self.orientations} orientations" if self.kind == "turned" else str(self.view)


@dataclass(frozen=True)
class Receipt:
    """What came of a purchase: seconds, and the measured gain of the portfolio with its standard error (None: not
    measured, or it failed for the reason in `note`). `note`: why nothing came of it."""

    purchase: Purchase
    seconds: float
    expected: float
    gain: float | None = None
    error: float | None = None
    note: str = ""

    def record(self) -> dict[str, Any]:
        """What the journal says of it; `Gains.learn` reads it again."""
        return {
            "purchase": str(self.purchase),
            "kind": self.purchase.kind,
            "seconds": round(self.seconds, 3),
            "expected": self.expected,
            "gain": self.gain,
            "error": self.error,
            "note": self.note,
        }

    def outcome(self) -> str:
        """What came of it, for people."""
        if self.gain is None or self.error is None:
            return self.note or "gain not measured"
        error = "" if math.isinf(self.error) else f" ± {100 * self.error:.1f}"
        note = f", {self.note}" if self.note else ""
        return f"{100 * self.gain:+.1f}{error} points, {100 * self.expected:.1f} expected{note}"

    def __str__(self) -> str:
        return f"{self.purchase}: {self.outcome()}, in {self.seconds:.1f} s"


@dataclass
class Gains:
    """Expected gains: a table of what purchases gained on other datasets, corrected by what they gained on this
    one."""

    classes: int
    _ratios: dict[Kind, list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list), init=False
    )
    """Measured gains in relation to the expected ones, and how much they say beside the table: 1 at most, since
    purchases of a kind differ from each other as much as datasets do."""
    _measured: dict[str, float] = field(default_factory=dict, init=False)

    def learn(self, kind: Kind, name: str, expected: float, gain: float, error: float) -> None:
        """A purchase of a kind has gained so much, with a standard error, where `expected` was expected."""
        spread = PRIOR_SPREAD * max(expected, LEAST_ERROR / USUAL_ERROR * LEAST_GAIN)
        self._ratios[kind].append((PRIOR_SPREAD * gain / spread, 1 / (1 + (error / spread) ** 2)))
        self._measured[name] = shrink_gain(gain, error)

    def learn_from(self, records: Iterable[Mapping[str, Any]]) -> int:
        """What earlier runs have measured, from their journal; how many purchases that were, each counted once, as it
        was measured last."""
        measured = (row for row in records if row.get("gain") is not None and "purchase" in row)
        known = {row["purchase"]: row for row in measured}
        for row in known.values():
            self.learn(row["kind"], row["purchase"], row["expected"], row["gain"], row["error"])
        return len(known)

    def helped(self, kind: Kind) -> bool:
        """Whether purchases of a kind were made, and gained something together."""
        return sum(ratio * count for ratio, count in self._ratios[kind]) > 0

    def expect(
        self, purchase: Purchase, weights: Mapping[View, float], accuracies: Mapping[View, float]
    ) -> float:
        """Expected gain in normalised accuracy, given the weights of the views so far and their accuracies alone."""
        if str(purchase) in self._measured:
            return self._measured[str(purchase)]
        ratios = self._ratios[purchase.kind]
        believed = (1 + sum(ratio * count for ratio, count in ratios)) / (
            1 + sum(count for _, count in ratios)
        )
        return max(believed, 0.0) * to_gain(accuracies) * self._prior(purchase, weights, accuracies)

    def least(self, accuracies: Mapping[View, float]) -> float:
        """The least gain that is worth a purchase, given the accuracies of the views alone."""
        return LEAST_GAIN * to_gain(accuracies)

    def _prior(
        self, purchase: Purchase, weights: Mapping[View, float], accuracies: Mapping[View, float]
    ) -> float:
        if purchase.kind == "turned":
            few = 1 / (1 + (self.classes / MANY_CLASSES) ** 4)
            total = sum(weights.values())
            return TURNED_GAIN * STEP_SHARE[purchase.orientations] * few * weights[purchase.view] / total
        relative = relative_weight(purchase.view, accuracies)
        if purchase.kind == "view":
            return VIEW_GAIN * relative * distinctness(purchase.view, weights) / (len(weights) + 1)
        trained = sum(bool(view.variant) for view in weights)
        share = 1.0 if purchase.view.variant == TUNED else FAMILY_SHARE
        return TRAINED_GAIN * share * relative / (trained + 1)


def to_gain(accuracies: Mapping[View, float]) -> float:
    """What the best of some views leaves to gain, in relation to `USUAL_ERROR`; 1 where nothing is known."""
    if not accuracies:
        return 1.0
    return max(1 - max(accuracies.values()), LEAST_ERROR) / USUAL_ERROR


def distinctness(view: View, others: Iterable[View]) -> float:
    """How different a view is from others, from 0 to 1: those of the same network at a similar size see the same."""
    same = [other.px for other in others if (other.backbone, other.variant) == (view.backbone, view.variant)]
    apart = [abs(math.log(view.px / px)) / math.log(DISTINCT_SIZES) for px in same]
    return min([1.0, *apart])


def relative_weight(view: View, accuracies: Mapping[View, float]) -> float:
    """The weight that a view is expected to get, relative to the mean weight of the views with known `accuracies`:
    their backbones and sizes tell."""
    if not accuracies:
        return 1.0
    predicted = predict_accuracy(view, accuracies)
    mean = sum(accuracies.values()) / len(accuracies)
    return min(math.exp((predicted - mean) / SOFTNESS), 3.0)


def predict_accuracy(view: View, accuracies: Mapping[View, float]) -> float:
    """The accuracy of a view alone, from those of others: their mean, and half of what views with its network and
    with its size are better than that; `FINER_GAIN` for each doubling of the size beyond the finest of them."""
    mean = predicted = sum(accuracies.values()) / len(accuracies)
    alike: list[Callable[[View], bool]] = [
        lambda other: (other.backbone, other.variant) == (view.backbone, view.variant),
        lambda other: other.px == view.px,
    ]
    for same in alike:
        found = [accuracy for other, accuracy in accuracies.items() if same(other)]
        if found:
            predicted += 0.5 * (sum(found) / len(found) - mean)
    finest = max(other.px for other in accuracies)
    if view.px > finest:
        predicted += FINER_GAIN * math.log2(view.px / finest)
    return predicted


def list_purchases(
    views: Sequence[View],
    orientations: Mapping[View, int],
    variants: Sequence[str],
    *,
    turned: bool = True,
) -> list[Purchase]:
    """All that could be bought next: `views` that are not in the portfolio, the next step of turned classes for those
    that are (`orientations`) where metrics are fitted to classes (`turned`), and a copy of each of their networks for
    each of the `variants`, at the smallest size that there is."""
    found = [Purchase("view", view) for view in views if view not in orientations]
    untrained = sorted(view for view in orientations if not view.variant)
    for view in untrained if turned else ():
        further = [step for step in ORIENTATION_STEPS if step > orientations[view]]
        found += [Purchase("turned", view, step) for step in further[:1]]
    trained = {(view.backbone, view.variant) for view in orientations}
    smallest = {view.backbone: view for view in reversed(untrained)}
    for view in smallest.values():
        for variant in variants:
            if (view.backbone, variant) not in trained:
                found.append(Purchase("trained", replace(view, variant=variant)))
    return found
