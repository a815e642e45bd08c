"""`autometa fit`: adapts to the images of a folder within a budget, and remembers its classes.

All classes are learned from; the accuracy to expect comes from folds of classes that were held out. Where there are
too few to learn from, pretrained backbones serve as they are.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autometa.backbones import View
from autometa.classifier.estimator import FewShotClassifier
from autometa.classifier.held_out import score_held_out, without_scoring
from autometa.classifier.machines import Machines, spread_over
from autometa.classifier.options import FitOptions
from autometa.classifier.reading import (
    MOST_SHOTS,
    MOST_WAYS,
    QUERIES,
    Progress,
    ReadImages,
    Report,
    read_images,
)
from autometa.classifier.remembering import Examples, Room, choose_examples
from autometa.classifier.serving import (
    allowed_views,
    folder_bytes,
    hold_saved,
    limit_preset,
    limits_of,
    make_gate,
    record_serving,
    settings_of,
    weight_bytes,
)
from autometa.classifier.sources import PX, RECORD, Source, find_backbones, open_model, open_preset
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.errors import ConfigError
from autometa.core.files import DESCRIPTION
from autometa.core.settings import Settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.data.test_spec import FORMAT_PX, TestSpec
from autometa.heads.modes import SIX_MODES
from autometa.model.load import load_learner
from autometa.model.trained_ensemble import FOLDER
from autometa.planning.choice_log import CHOICES_FILE
from autometa.planning.stage_log import JOURNAL, STAGES_FILE
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
OWN_FILES = frozenset({RECORD, DESCRIPTION, JOURNAL, STAGES_FILE, CHOICES_FILE})
MEMBER = FOLDER.format(name="")
"""What an earlier fit leaves in its folder, beside files of tensors."""
CLOSING_S, CLOSING_SHARE = 2.0, 0.1
"""Of the time budget: what remains to encode the examples and to write them, so much and this share."""


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
    with spread_over(options.ray, report) as machines:
        folder = claim_folder(options.output, overwrite=options.overwrite)
        read = read_images(dataset, options, budget, report, on_progress)
        pool, held_out = read.pool, read.held_out
        if pool.classes < 2:
            only = f"one class, `{read.class_names[0]}`" if pool.classes else "no class"
            raise InputError(
                f"{dataset}: {only} with images that can be read; two are needed: add a subfolder of images"
            )
        figures: dict[str, Any] = {"images": len(pool.images), "classes": pool.classes}
        model = folder if _is_enough(pool) else None
        if model is not None:
            learning = budget if held_out is None else without_scoring(budget)
            figures |= _learn(pool, options, folder, learning, report, machines)
    classifier = FewShotClassifier(model, preset=options.wanted)
    seen = _open_networks(model, options, read, report)
    if model is None:
        clear_folder(folder)
    room = Room(options.max_model_size, folder_bytes(folder) if model else weight_bytes(seen))
    examples = Examples(pool, read.class_names, options.seed)
    classifier.fit_on(seen, *choose_examples(seen, examples, room, budget, report))
    classifier.save(folder)
    if held_out is not None:
        figures["validation"] = score_held_out(seen.space, held_out, options.seed, budget, report)
    figures["serving"] = record_serving(classifier, folder, pool, budget, report)
    return Fitted(classifier, folder, figures | {"preparation": read.preparation.to_json()})


def _open_networks(model: Path | None, options: FitOptions, read: ReadImages, report: Report) -> Source:
    """What a model sees with, or, where there were too few images to learn from, pretrained backbones as they are."""
    if model is not None:
        return open_model(model, read.preparation)
    report(
        f"{read.pool.classes} classes and {len(read.pool.images)} images are too few to learn from (from "
        f"{LEAST_CLASSES} and {LEAST_IMAGES} on): pretrained backbones serve as they are"
    )
    seen = replace(open_preset(options.wanted), preparation=read.preparation)
    return limit_preset(seen, limits_of(options), read.pool, report)


def claim_folder(folder: Path, *, overwrite: bool) -> Path:
    """The folder for the model, made. What an earlier fit has left in it stays until `clear_folder`: nothing is lost
    for bad input. ConfigError where it holds other files, or an earlier model without `overwrite`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ConfigError(
            f"--output {folder}: cannot be used ({error.strerror}); name another folder"
        ) from error
    holds_model = RECORD in there or DESCRIPTION in there
    if there and not holds_model and not _has_only_begun(folder):
        raise ConfigError(f"--output {folder}: is not empty, and no model; name another folder")
    if holds_model and not overwrite:
        raise ConfigError(f"--output {folder}: holds a model; add --overwrite, or name another folder")
    return folder.resolve()


def clear_folder(folder: Path) -> None:
    """Delete what an earlier fit has left: the search would go on with what it finds."""
    for path in filter(_is_ours, folder.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _has_only_begun(folder: Path) -> bool:
    """Whether a fit has left nothing here but the records of what it tried, as where weights were missing."""
    paths = list(folder.iterdir())
    return any(path.name in {JOURNAL, STAGES_FILE} for path in paths) and all(map(_is_ours, paths))


def _is_ours(path: Path) -> bool:
    if path.is_dir():
        return path.name.startswith(MEMBER)
    half_written = path.name.startswith(".") and path.name.rpartition(".")[2].isdigit()
    return half_written or path.name in OWN_FILES or path.suffix == ".safetensors"


def _is_enough(pool: ImagePool) -> bool:
    """Whether there is something to learn from: classes with two images or more, and images."""
    sizes = np.bincount(pool.labels, minlength=pool.classes)
    return int((sizes > 1).sum()) >= LEAST_CLASSES and len(pool.images) >= LEAST_IMAGES


def _learn(
    pool: ImagePool,
    options: FitOptions,
    folder: Path,
    budget: TimeBudget,
    report: Report,
    machines: Machines,
) -> dict[str, Any]:
    """Learn within the time, and leave the learner in `folder`; what accuracy to expect of it. `machines`: who
    works beside this process."""
    settings = settings_of(options)
    closing_s = CLOSING_S + CLOSING_SHARE * max(budget.left_s(), 0)
    learning = TimeBudget(budget.deadline - closing_s)
    total = options.memory_budget
    memory = MemoryBudget(int(total)) if total else MemoryBudget.of_machine()
    limits = Limits(learning, learning, memory)
    episodes = EpisodeSpec((2, min(MOST_WAYS, pool.classes)), (1, MOST_SHOTS), QUERIES, balanced=False)
    protocol = "within-domain" if len(pool.datasets) == 1 else "cross-domain"
    test = TestSpec(1, episodes, None, protocol, px=pool.images.shape[-1])
    system: Controller | FixedSystem
    gate: ServingGate | None = None
    if pool.classes < LEAST_TO_SEARCH:
        gate = make_gate(limits_of(options), test, limits, SIX_MODES)
        if machines.spread is not None:
            report(
                f"{pool.classes} classes are too few to search (from {LEAST_TO_SEARCH} on): all work is done here"
            )
        system = _open_fixed(gate, settings, test, limits, folder, report)
    else:
        spread, trainers = machines.spread, machines.trainers
        system = Controller(
            settings,
            test,
            limits,
            folder,
            report,
            start_s=0.0,
            spread=spread,
            trainers=trainers,
            serving=limits_of(options),
        )
        system.check()
    clear_folder(folder)  # from here on, there will be a model
    system.bootstrap()
    try:
        told = system.run(pool).validation
    except KeyboardInterrupt:
        report("interrupted: what was learned so far is saved; a second interrupt stops the work")
        told = load_learner(folder).validation
    if gate is not None:
        hold_saved(gate, folder, pool, report)
    return {"stage": told.get("stage")} | {
        key: told[key] for key in ("normalised_accuracy", "interval") if key in told
    }


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
