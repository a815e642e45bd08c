"""What a classifier takes: its limits while it is made, and its size and latency in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ByteSize

from autometa.backbones import View, expand_presets
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.classifier.estimator import FewShotClassifier
from autometa.classifier.notes import Note, Report
from autometa.classifier.options import FitOptions
from autometa.classifier.portfolio_space import PortfolioSpace
from autometa.classifier.sources import Source
from autometa.core.budget import Limits, TimeBudget
from autometa.core.errors import UnmetLimit
from autometa.core.machine import Machine
from autometa.core.settings import Settings
from autometa.data.images import ImagePool
from autometa.data.test_spec import TestSpec
from autometa.model.latency import Latency, measure_latency
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.planning.forecast import Forecast
from autometa.planning.serving_limits import ServingLimits, ServingNeeds
from autometa.search.serving_check import SavedCheck, draw_task, hold_limits, needs_of
from autometa.search.serving_gate import MODE_SETS, ServingGate

Images = NDArray[np.uint8]
LABEL_BYTES = 8
"""Of an example."""
_SLOW = (
    "raise the limit, name a cheaper backbone with --backbones, or prepare images smaller with --image-size"
)
REMEDIES = {
    "--infer-limit": _SLOW,
    "--adapt-limit": _SLOW,
    "--max-model-size": "raise the limit, name a smaller backbone with --backbones, or give fewer classes",
}
"""Where a limit is not kept."""
REPEATS = 16
"""Calls for one image that are counted."""
LEARNER_SHARE = 0.75
"""Of the largest size on disk: the learner. The rest is for the examples, which are fewer where they do not fit."""
LEAST_S = 1.0
"""Time that must be left to measure latency."""


@dataclass(frozen=True)
class ClassifierOn:
    """Networks as a learner: a support set makes a `FewShotClassifier`, whose `predict_proba` answers."""

    source: Source

    def fit(self, images: Images, labels: NDArray[np.int64], ways: int) -> Answers:
        """Of support images uint8 [s, 3, px, px]."""
        return Answers(FewShotClassifier().fit_on(self.source, np.moveaxis(images, 1, -1), labels))


@dataclass(frozen=True)
class Answers:
    """A classifier with a support set."""

    classifier: FewShotClassifier

    def predict(self, images: Images) -> NDArray[np.float64]:
        """Probabilities [q, ways] of images uint8 [q, 3, px, px]."""
        return self.classifier.predict_proba(np.moveaxis(images, 1, -1))


def limits_of(options: FitOptions) -> ServingLimits:
    """Those of the learner: on disk, the examples are beside it."""
    size = options.max_model_size
    of_learner = None if size is None else int(LEARNER_SHARE * size)
    return ServingLimits(options.infer_limit, options.adapt_limit, of_learner, LEARNER_SHARE)


def settings_of(options: FitOptions) -> Settings:
    """What the search is told."""
    named = [name.strip() for name in (options.backbones or options.preset or "").split(",") if name.strip()]
    serving = limits_of(options)
    return Settings(
        seed=options.seed,
        backbones=expand_presets(named) or None,
        infer_limit=serving.infer_s,
        adapt_limit=serving.adapt_s,
        max_model_size=None if serving.model_bytes is None else ByteSize(serving.model_bytes),
    )


def measure_classifier(source: Source, pool: ImagePool, repeats: int = REPEATS) -> Latency:
    """What classifiers with these networks take, on images of a pool that are prepared already."""
    images, labels, query = draw_task(pool)
    return measure_latency(ClassifierOn(source), (images, labels), query, repeats=repeats)


def make_gate(limits: ServingLimits, test: TestSpec, budget: Limits, modes: Sequence[str]) -> ServingGate:
    """A gate for learners that are not searched for, whose modes are these or fewer."""
    shelf = BackboneShelf(Machine.detect().device)
    forecast = Forecast(test, budget, shelf, FeatureStore(shelf, budget.memory), 0.0)
    smaller = [one for one in MODE_SETS if set(one) < set(modes)]
    return ServingGate(limits, forecast, test.px, (tuple(modes), *smaller))


def allowed_views(
    gate: ServingGate, views: Sequence[View], report: Callable[[str], None]
) -> tuple[View, ...]:
    """The first of these views, or a smaller size of it, and those of the others that keep the limits beside it.
    UnmetLimit where not even the first does."""
    if not gate.limits:
        return tuple(views)
    sizes = (px for px in (views[0].px, 128, 96, 64) if px <= views[0].px)
    network = gate.forecast.shelf(views[0].backbone)
    first = gate.first_view(dict.fromkeys(replace(views[0], px=network.input_px(px)) for px in sizes))
    if (without := gate.leave_metrics_out(first)) is not None:
        report(without)
    kept = [first]
    for view in views[1:]:
        gate.measure(view)
        broken = gate.broken_with([*kept, view])
        if broken is None:
            kept.append(view)
        else:
            report(f"without {view}: {broken}")
    return tuple(kept)


def hold_saved(gate: ServingGate, folder: Path, pool: ImagePool, report: Callable[[str], None]) -> None:
    """Make the portfolio that is saved in a folder keep the limits."""
    saved = load_learner(folder)
    if gate.limits and isinstance(saved, Portfolio):
        SavedCheck(gate, folder, report).hold(saved, draw_task(pool)).save(folder)


def fitting_rows(source: Source, left: int, wanted: int, pool: ImagePool) -> int:
    """How many examples of each class of a pool a classifier may remember, of those that are wanted: as they are
    kept, features or whole images, they must fit into the bytes that are left; one at least."""
    encoded = source.space.encode(pool.images[:1])
    row = sum(tensor.nbytes for tensor in encoded.values()) + LABEL_BYTES
    fitting = (
        each for each in range(wanted, 0, -1) if row * int(np.minimum(pool.class_sizes, each).sum()) <= left
    )
    return next(fitting, 1)


def folder_bytes(folder: Path) -> int:
    """Size of a saved classifier: all its tensors, and what describes them."""
    return sum(file.stat().st_size for file in folder.rglob("*") if is_part(file))


def is_part(file: Path) -> bool:
    """Whether a file belongs to a saved classifier, not to the records of how it was made."""
    return file.suffix == ".safetensors" or file.name in ("learner.json", "classifier.json")


def weight_bytes(source: Source) -> int:
    """Size on disk of the networks of a portfolio that is not saved yet; 0 for other learners."""
    if not isinstance(source.space, PortfolioSpace):
        return 0
    portfolio = source.space.portfolio
    networks = {(view.backbone, view.variant) for view in portfolio.views}
    return sum(portfolio.shelf.saved_bytes(*network) for network in networks)


def limit_preset(
    source: Source, limits: ServingLimits, pool: ImagePool, report: Callable[[str], None]
) -> Source:
    """Pretrained backbones as they are, without those that break the limits. UnmetLimit where one alone does."""
    if not limits or not isinstance(source.space, PortfolioSpace):
        return source
    task = draw_task(pool)

    def measured(portfolio: Portfolio) -> ServingNeeds:
        made = replace(source, space=PortfolioSpace(portfolio))
        found = measure_latency(ClassifierOn(made), task[:2], task[2], repeats=REPEATS)
        return needs_of(found, weight_bytes(made))

    kept = hold_limits(source.space.portfolio, limits, measured, report)
    if (broken := limits.broken_by(measured(kept))) is not None:
        raise UnmetLimit(
            f"{broken.option} {broken.asked}: the cheapest candidate, {kept.views[0]}, takes {broken.needed} here; "
            "raise the limit above that, or name a cheaper backbone with --backbones"
        )
    return replace(source, space=PortfolioSpace(kept), is_preset=False)


def record_serving(
    classifier: FewShotClassifier,
    folder: Path,
    pool: ImagePool,
    budget: TimeBudget,
    report: Report,
) -> dict[str, Any]:
    """The size on disk and the latency (None: there was no time to measure it) of a classifier that was saved in a
    folder, whose description gets them, too."""
    latency = None
    if budget.left_s() > LEAST_S:
        latency = measure_classifier(classifier._source, pool)
        report(f"latency: {latency.describe()}")
    else:
        report(Note("latency: not measured, as no time was left; a longer --time-budget measures it"))
    serving = {"bytes": folder_bytes(folder), "latency": None if latency is None else latency.to_json()}
    classifier._serving = serving
    classifier.save(folder)
    return serving


def limits_broken(options: FitOptions, serving: Mapping[str, Any]) -> list[str]:
    """A line for each limit that a saved classifier, with its examples, does not keep as it was measured."""
    limits = ServingLimits(options.infer_limit, options.adapt_limit, options.max_model_size)
    latency = serving["latency"]
    infer_s, adapt_s = (latency[each]["p95_ms"] / 1000 if latency else 0.0 for each in ("predict", "adapt"))
    broken = limits.all_broken_by(ServingNeeds(infer_s, adapt_s, serving["bytes"]))
    return [f"the model is {each}; {REMEDIES[each.option]}" for each in broken]
