"""The end of a run with limits: the learner that was saved is measured, and made smaller until it keeps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from autometa.core.files import DESCRIPTION, count_tensor_bytes
from autometa.data.images import ImagePool, Rows
from autometa.heads.modes import collect_keys
from autometa.model.fitted_learner import FittedLearner
from autometa.model.inputs import Images, list_inputs
from autometa.model.latency import Latency, measure_latency
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.planning.serving_limits import SHOTS, WAYS, ServingLimits, ServingNeeds, show_mb, show_ms
from autometa.search.incumbent import Incumbent
from autometa.search.serving_gate import MODE_SETS, TAIL, ServingGate

REPEATS, FEW_REPEATS, QUERIES = 24, 10, 5
"""Calls for one image that are counted, at the end and on the way; images of the batch."""
Task = tuple[Images, Rows, Images]
"""Support images, their labels, and queries."""
Measure = Callable[[Portfolio], ServingNeeds]
MEASURED = "serving"
"""What a learner was measured to take, in its description."""


def draw_task(pool: ImagePool) -> Task:
    """The task that limits are of, out of the images of a pool: `WAYS` classes with `SHOTS` images each, or as many
    as there are, and a few queries."""
    sizes = np.bincount(pool.labels, minlength=pool.classes)
    chosen = np.argsort(-sizes, kind="stable")[:WAYS]
    rows = [pool.rows_of_class[c][:SHOTS] for c in chosen if sizes[c]]
    labels = np.concatenate([np.full(len(each), place) for place, each in enumerate(rows)])
    support = np.concatenate(rows)
    return pool.images[support], labels, pool.images[np.resize(support[::-1], QUERIES)]


def measure(learner: Portfolio, task: Task, repeats: int = REPEATS) -> Latency:
    """What a learner takes for a task."""
    images, labels, query = task
    return measure_latency(learner, (images, labels), query, repeats=repeats)


def correct_gate(gate: ServingGate, portfolio: Portfolio, pool: ImagePool) -> None:
    """Set the predictions of a gate right by what a portfolio takes on images of the pool."""
    names = [mode.name for mode in portfolio.modes]
    latency = measure(portfolio, draw_task(pool), FEW_REPEATS)
    infer_s, adapt_s = (TAIL * each.p50_ms / 1000 for each in (latency.predict, latency.adapt))
    gate.correct(portfolio.views, names, ServingNeeds(infer_s, adapt_s))
    portfolio.limit_memory(gate.forecast.limits.memory)  # what it was asked is not kept


def needs_of(latency: Latency, model_bytes: int) -> ServingNeeds:
    """What limits are compared with: 95th percentiles, and a size."""
    return ServingNeeds(latency.predict.p95_ms / 1000, latency.adapt.p95_ms / 1000, model_bytes)


def learner_bytes(folder: Path) -> int:
    """Size of the learner that is saved in a folder: its tensors and their description."""
    return sum(count_tensor_bytes(folder).values()) + (folder / DESCRIPTION).stat().st_size


def make_smaller(portfolio: Portfolio) -> tuple[Portfolio, str] | None:
    """A portfolio with fewer modes, or, in the fewest modes, without its last view, and what was dropped; None where
    nothing is left to drop."""
    names = [mode.name for mode in portfolio.modes]
    for names_left in MODE_SETS:
        if set(names_left) < set(names):
            gone = [name for name in names if name not in names_left]
            return narrow(portfolio, len(portfolio.views), names_left), f"mode {', '.join(gone)}"
    if len(portfolio.views) == 1:
        return None
    return narrow(portfolio, len(portfolio.views) - 1, names), f"view {portfolio.views[-1]}"


def narrow(portfolio: Portfolio, n_views: int, names: Sequence[str]) -> Portfolio:
    """A portfolio with its first views and the modes of these names only, on the same networks and engines."""
    views = portfolio.views[:n_views]
    inputs = {one for key in collect_keys(names) for one in list_inputs(views, key)}
    costs = portfolio.costs
    kept = {str(view) for view in views}
    return replace(
        portfolio,
        views=views,
        modes=tuple(mode for mode in portfolio.modes if mode.name in names),
        metrics={key: metric for key, metric in portfolio.metrics.items() if key in inputs},
        weights=portfolio.weights[:n_views],
        validation=dict(portfolio.validation),
        costs=costs.model_copy(
            update={
                "image_s": {name: each for name, each in costs.image_s.items() if name in kept},
                "engine_s": {name: each for name, each in costs.engine_s.items() if name in kept},
            }
        ),
    )


def hold_limits(
    portfolio: Portfolio, limits: ServingLimits, measured: Measure, report: Callable[[str], None]
) -> Portfolio:
    """The portfolio, without its last modes and then its last views as far as the limits ask for it; `report` gets a
    line for each that is dropped. `measured` tells what a portfolio takes."""
    while (broken := limits.broken_by(measured(portfolio))) is not None:
        smaller = make_smaller(portfolio)
        if smaller is None:
            report(f"the learner is {broken}, and there is nothing left to drop")
            return portfolio
        portfolio, dropped = smaller
        report(f"dropped {dropped}: the saved learner was {broken}")
    return portfolio


def keeps_limits(learner: Portfolio | FittedLearner, limits: ServingLimits) -> bool:
    """Whether a saved learner was measured to keep these limits, if there are any."""
    measured = learner.validation.get(MEASURED)
    if not limits or measured is None:
        return not limits
    return limits.broken_by(ServingNeeds(**measured)) is None


@dataclass(frozen=True)
class SavedCheck:
    """Measures the learner that was saved in `folder` (None: the one at hand); `report` gets a line for each part
    that is dropped, and one for the result."""

    gate: ServingGate
    folder: Path | None
    report: Callable[[str], None]

    def replace(self, incumbent: Incumbent, pool: ImagePool) -> list[str]:
        """Let the latest portfolio keep the limits; names of its views and modes (none: there is no portfolio)."""
        if not isinstance(incumbent.latest, Portfolio):
            return []
        kept = self.hold(incumbent.latest, draw_task(pool))
        incumbent.replace(kept)
        return [*map(str, kept.views), *(mode.name for mode in kept.modes)]

    def hold(self, saved: Portfolio, task: Task) -> Portfolio:
        """The saved learner, smaller where the limits ask for it, and with what it takes in its description."""
        limits, gate, learner = self.gate.limits, self.gate, self._load(saved)
        found: list[ServingNeeds] = []

        def measured(portfolio: Portfolio) -> ServingNeeds:
            modes = [mode.name for mode in portfolio.modes]
            size = gate.needs(portfolio.views, modes).model_bytes
            if portfolio is learner and self.folder is not None:
                size = learner_bytes(self.folder)
            needs = ServingNeeds(0, 0, size)
            if limits.times and found and gate.forecast.limits.train.left_s() < gate.check_s(portfolio.views):
                needs = replace(gate.needs(portfolio.views, modes), model_bytes=size)  # no time to measure
            elif limits.times:
                needs = needs_of(measure(portfolio, task), size)
                gate.correct(portfolio.views, modes, needs)
            found.append(needs)
            return needs

        kept = hold_limits(learner, limits, measured, self.report)
        needs = found[-1]
        kept.validation[MEASURED] = asdict(needs)
        self.report(
            f"measured: {show_ms(needs.infer_s)} for one image, {show_ms(needs.adapt_s)} to adapt (p95), "
            f"{show_mb(needs.model_bytes)} on disk"
            if limits.times
            else f"measured: {show_mb(needs.model_bytes)} on disk"
        )
        kept.limit_memory(self.gate.forecast.limits.memory)
        return kept

    def _load(self, saved: Portfolio) -> Portfolio:
        """The learner as whoever loads it will have it: with the engines that it names, built anew."""
        if self.folder is None:
            return saved
        self.gate.forecast.make_room()
        learner = load_learner(self.folder)
        return learner if isinstance(learner, Portfolio) else saved
