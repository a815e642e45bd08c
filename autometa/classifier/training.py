"""`autometa fit`: adapts to the images of a folder within a budget, and remembers its classes.

All classes are learned from; the accuracy to expect comes from folds of classes that were held out. Where there are
too few to learn from, pretrained backbones serve as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autometa.backbones import View
from autometa.classifier.estimator import FewShotClassifier
from autometa.classifier.held_out import score_held_out, without_scoring
from autometa.classifier.machines import Machines, spread_over
from autometa.classifier.notes import Listener, Report
from autometa.classifier.options import FitOptions
from autometa.classifier.output_folder import claim_folder, clear_folder, refuse_inside
from autometa.classifier.reading import (
    MOST_SHOTS,
    MOST_WAYS,
    QUERIES,
    Progress,
    ReadImages,
    read_images,
)
from autometa.classifier.remembering import Examples, Room, count_images, encode_examples, usual_number
from autometa.classifier.serving import (
    allowed_views,
    folder_bytes,
    hold_saved,
    limit_preset,
    limits_broken,
    limits_of,
    make_gate,
    record_serving,
    settings_of,
    weight_bytes,
)
from autometa.classifier.sources import PX, Source, find_backbones, open_model, open_preset
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.settings import Settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.data.test_spec import FORMAT_PX, TestSpec
from autometa.heads.modes import SIX_MODES
from autometa.model.load import load_learner
from autometa.search.serving_gate import ServingGate
from autometa.systems.autometa import Controller
from autometa.systems.fixed import FixedSystem
from ingestion import InputError

LEAST_CLASSES, LEAST_IMAGES = 2, 12
"""With fewer, there is nothing to fit metrics to: pretrained backbones serve as they are. From there on, metrics
gained on development sets (icons: 9 points on new classes from three classes with four images each), or did no
harm."""
LEAST_TO_SEARCH = 6
"""With fewer classes, none can be held out to tell what helps: a fixed recipe learns from all."""
CLOSING_S, CLOSING_SHARE = 2.0, 0.05
"""Of the time budget: what remains to write the examples and to measure latency, so much and this share. What
encoding them takes is reserved as meta-test is elsewhere."""


@dataclass(frozen=True)
class Fitted:
    """What came of a fit: the classifier that is in `folder`, and figures for people and for JSON."""

    classifier: FewShotClassifier
    folder: Path
    figures: dict[str, Any]


def fit_folder(
    dataset: Path,
    options: FitOptions,
    report: Report = print,
    on_progress: Progress = lambda done, total: None,
    spent_s: float = 0.0,
) -> Fitted:
    """Learn from all labelled images under `dataset` within the budget of `options`, and save a classifier that knows
    its classes; with a class split, from those of meta-train, and it is scored on those of meta-valid. `spent_s`:
    seconds of the time budget that are spent already.

    InputError or ConfigError names the folder or the option that is wrong, and the fix.
    """
    budget = TimeBudget.of(options.time_budget - spent_s)
    folder, read, figures = _read_and_learn(dataset, options, budget, report, on_progress)
    pool, held_out = read.pool, read.held_out
    model = folder if _is_enough(pool) else None
    classifier = FewShotClassifier(model, preset=options.wanted)
    seen = _open_networks(model, options, read, report)
    if model is None:
        clear_folder(folder)
    room = Room(options.max_model_size, folder_bytes(folder) if model else weight_bytes(seen))
    examples = Examples(pool, read.class_names, options.seed)
    classifier.fit_encoded(seen, *encode_examples(seen, examples, room, budget, report))
    classifier.save(folder)
    if held_out is not None:
        figures["validation"] = score_held_out(seen.space, held_out, options.seed, budget, report)
    figures["serving"] = record_serving(classifier, folder, pool, budget, report)
    figures["over_limits"] = limits_broken(options, figures["serving"])
    return Fitted(classifier, folder, figures | {"preparation": read.preparation.to_json()})


def _read_and_learn(
    dataset: Path, options: FitOptions, budget: TimeBudget, report: Report, on_progress: Progress
) -> tuple[Path, ReadImages, dict[str, Any]]:
    """The folder of the model, with a learner in it where there are enough images; the images; and figures."""
    with spread_over(options.ray, report) as machines:
        refuse_inside(options.folder, dataset)
        folder = claim_folder(options.folder, overwrite=options.overwrite)
        read = read_images(dataset, options, budget, report, on_progress)
        pool = read.pool
        if pool.classes < 2:
            only = f"one class, `{read.class_names[0]}`" if pool.classes else "no class"
            raise InputError(
                f"{dataset}: {only} with images that can be read; two are needed: add a subfolder of images"
            )
        figures: dict[str, Any] = {"images": len(pool.images), "classes": pool.classes}
        if _is_enough(pool):
            learning = budget if read.held_out is None else without_scoring(budget)
            listener = Listener(report)
            opened = _open_system(pool, options, folder, learning, listener, machines)
            figures |= _learn(*opened, pool, folder, listener)
        else:
            figures["not_measured"] = _told_too_few(pool)
    return folder, read, figures


def _open_networks(model: Path | None, options: FitOptions, read: ReadImages, report: Report) -> Source:
    """What a model sees with, or, where there were too few images to learn from, pretrained backbones as they are."""
    if model is not None:
        return open_model(model, read.preparation)
    report(f"{_told_too_few(read.pool)}: pretrained backbones serve as they are")
    seen = replace(open_preset(options.wanted), preparation=read.preparation)
    return limit_preset(seen, limits_of(options), read.pool, report)


def _told_too_few(pool: ImagePool) -> str:
    return (
        f"{pool.classes} classes and {len(pool.images)} images are too few to learn from (from {LEAST_CLASSES} and "
        f"{LEAST_IMAGES} on)"
    )


def _is_enough(pool: ImagePool) -> bool:
    """Whether there is something to learn from: classes with two images or more, and images."""
    sizes = np.bincount(pool.labels, minlength=pool.classes)
    return int((sizes > 1).sum()) >= LEAST_CLASSES and len(pool.images) >= LEAST_IMAGES


def _learn(
    system: Controller | FixedSystem,
    gate: ServingGate | None,
    pool: ImagePool,
    folder: Path,
    report: Listener,
) -> dict[str, Any]:
    """Learn within the time of the system, and leave the learner in `folder`; what accuracy to expect of it."""
    clear_folder(folder)  # from here on, there will be a model
    system.bootstrap()
    try:
        told = system.run(pool).validation
    except KeyboardInterrupt:
        report.hear_interrupt()
        told = load_learner(folder).validation
    if gate is not None:
        hold_saved(gate, folder, pool, report)
    return _expected(told, pool, report.why)


def _open_system(
    pool: ImagePool,
    options: FitOptions,
    folder: Path,
    budget: TimeBudget,
    report: Listener,
    machines: Machines,
) -> tuple[Controller | FixedSystem, ServingGate | None]:
    """What learns from this many classes: a search, which keeps the limits of its users by itself, or a fixed recipe
    with the gate that does. `machines`: who works beside this process. WeightsError or UnmetLimit where it cannot
    begin; nothing is written."""
    test, limits = _declare(pool, options, budget)
    if pool.classes < LEAST_TO_SEARCH:
        gate = make_gate(limits_of(options), test, limits, SIX_MODES)
        if machines.spread is not None:
            report(
                f"{pool.classes} classes are too few to search (from {LEAST_TO_SEARCH} on): all work is done here"
            )
        return _open_fixed(gate, settings_of(options), test, limits, folder, report), gate
    system = Controller(
        settings_of(options),
        test,
        limits,
        folder,
        report,
        start_s=0.0,
        spread=machines.spread,
        trainers=machines.trainers,
        serving=limits_of(options),
    )
    system.check()
    return system, None


def _declare(pool: ImagePool, options: FitOptions, budget: TimeBudget) -> tuple[TestSpec, Limits]:
    """What the learner is for, as a run would declare it, and what learning may take."""
    closing_s = CLOSING_S + CLOSING_SHARE * max(budget.left_s(), 0)
    learning = TimeBudget(budget.deadline - closing_s)
    total = options.memory_budget
    memory = MemoryBudget(int(total)) if total else MemoryBudget.of_machine()
    episodes = EpisodeSpec((2, min(MOST_WAYS, pool.classes)), (1, MOST_SHOTS), QUERIES, balanced=False)
    protocol = "within-domain" if len(pool.datasets) == 1 else "cross-domain"
    images = count_images(pool, usual_number(pool))  # what is encoded in the end
    test = TestSpec(1, episodes, images, protocol, drawn_images=images, px=pool.images.shape[-1])
    return test, Limits(learning, learning, memory)


def _expected(told: Mapping[str, Any], pool: ImagePool, why: str) -> dict[str, Any]:
    """What accuracy to expect of a learner, by what it says, or why that is not known; `why`: as was said before."""
    figures = {key: told[key] for key in ("normalised_accuracy", "interval") if key in told}
    if not figures:
        if pool.classes < LEAST_TO_SEARCH:
            why = f"{pool.classes} classes are too few to hold any out (from {LEAST_TO_SEARCH} on)"
        figures["not_measured"] = why or "no time was left for it; a longer --time-budget measures it"
    return {"stage": told.get("stage")} | figures


def _open_fixed(
    gate: ServingGate, settings: Settings, test: TestSpec, limits: Limits, folder: Path, report: Report
) -> FixedSystem:
    """The system that learns without a search, in the views and modes that keep the limits of a gate."""
    views = allowed_views(gate, _plain_views(settings), report)
    if (fewer := gate.why_fewer(views)) is not None:
        report(fewer)
    return FixedSystem(
        test,
        limits,
        folder,
        report,
        0.0,
        views[0],
        settings.seed,
        further=views[1:],
        modes=gate.modes(views),
    )


def _plain_views(settings: Settings) -> tuple[View, ...]:
    """A few views to take without any evidence: the cheapest backbones at the usual size, and the first one larger.
    WeightsError where none has weights here."""
    names = settings.backbones or find_backbones("auto")
    return (*(View(name, FORMAT_PX) for name in names), View(names[0], PX))
