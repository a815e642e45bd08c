"""`autometa fit`: adapts to the images of a folder within a budget, and remembers its classes.

All classes are learned from; the accuracy to expect comes from folds of classes that were held out. Where there are
too few to learn from, pretrained backbones serve as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autometa.backbones import View
from autometa.classifier.estimator import FewShotClassifier
from autometa.classifier.options import FitOptions
from autometa.classifier.serving import (
    allowed_views,
    fitting_rows,
    folder_bytes,
    hold_saved,
    limit_preset,
    limits_of,
    make_gate,
    record_serving,
    settings_of,
    weight_bytes,
)
from autometa.classifier.shape_choice import choose_shape_of_datasets
from autometa.classifier.sources import PX, RECORD, find_backbones, open_model, open_preset
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.errors import ConfigError
from autometa.core.files import DESCRIPTION
from autometa.core.settings import Settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool, take_share_of_each_class
from autometa.data.test_spec import FORMAT_PX, TestSpec
from autometa.heads.modes import SIX_MODES
from autometa.model.load import load_learner
from autometa.model.trained_ensemble import FOLDER
from autometa.planning.choice_log import CHOICES_FILE
from autometa.planning.stage_log import JOURNAL, STAGES_FILE
from autometa.systems.autometa import Controller
from autometa.systems.fixed import FixedSystem
from ingestion import InputError, Preparation
from ingestion.datasets import Dataset
from ingestion.decoding import FEW_IMAGES, measure_pace
from ingestion.doubles import set_doubles_aside
from ingestion.image_size import choose_image_size
from ingestion.images import DecodedDataset, decode_dataset, default_cache_dir, is_decoded
from ingestion.sources import read_source, summarise
from ingestion.survey import choose_preparation

LEAST_CLASSES, LEAST_IMAGES = 2, 12
"""With fewer, there is nothing to fit metrics to: pretrained backbones serve as they are. From there on, metrics
gained on development sets (icons: 9 points on new classes from three classes with four images each), or did no
harm."""
LEAST_TO_SEARCH = 6
"""With fewer classes, none can be held out to tell what helps: a fixed recipe learns from all."""
OWN_FILES = frozenset({RECORD, DESCRIPTION, JOURNAL, STAGES_FILE, CHOICES_FILE})
MEMBER = FOLDER.format(name="")
"""What an earlier fit leaves in its folder, beside files of tensors."""
REMEMBERED, REMEMBERED_IN_ALL = 20, 2000
"""Examples that the saved classifier remembers, at most: of each class, and of all."""
QUERIES, MOST_WAYS, MOST_SHOTS = 5, 20, 20
"""Of the episodes by which the search judges."""
DOUBLES_SHARE, SHAPE_SHARE, DECODING_SHARE = 0.05, 0.1, 0.4
"""Of the time left: what comparing images may take, to find those that are there twice, what trying how they become
square may, and what decoding may."""
CLOSING_S, CLOSING_SHARE = 2.0, 0.1
"""Of the time budget: what remains to encode the examples and to write them, so much and this share."""
Report = Callable[[str], None]
Progress = Callable[[int, int], None]


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
    its classes. `spent_s`: seconds of the time budget that are spent already.

    InputError or ConfigError names the folder or the option that is wrong, and the fix.
    """
    budget = TimeBudget.of(options.time_budget - spent_s)
    folder = claim_folder(options.output, overwrite=options.overwrite)
    decoded, preparation = _decode(dataset, options, budget, report, on_progress)
    pool = _join(decoded)
    if pool.classes < 2:
        only = f"one class, `{_class_names(decoded)[0]}`" if pool.classes else "no class"
        raise InputError(
            f"{dataset}: {only} with images that can be read; two are needed: add a subfolder of images"
        )
    figures: dict[str, Any] = {"images": len(pool.images), "classes": pool.classes}
    if _is_enough(pool):
        figures |= _learn(pool, options, folder, budget, report)
        model: Path | None = folder
    else:
        report(
            f"{pool.classes} classes and {len(pool.images)} images are too few to learn from (from "
            f"{LEAST_CLASSES} and {LEAST_IMAGES} on): pretrained backbones serve as they are"
        )
        model = None
    preset = options.backbones or options.preset or "auto"
    classifier = FewShotClassifier(model, preset=preset)
    seen = open_preset(preset) if model is None else open_model(model, preparation)
    seen = replace(seen, preparation=preparation)
    if model is None:
        seen = limit_preset(seen, limits_of(options), pool, report)
    known_bytes = folder_bytes(folder) if model else weight_bytes(seen)
    each = min(max(REMEMBERED_IN_ALL // pool.classes, 1), REMEMBERED)
    each = fitting_rows(seen, options.max_model_size, known_bytes, each, pool.classes)
    images, names = _examples(pool, _class_names(decoded), options.seed, each)
    classifier.fit_on(seen, images, names)
    classifier.save(folder)
    figures["serving"] = record_serving(classifier, folder, pool, budget, report)
    return Fitted(classifier, folder, figures | {"preparation": preparation.to_json()})


def claim_folder(folder: Path, *, overwrite: bool) -> Path:
    """The folder for the model, made. ConfigError where it holds other files, or an earlier model without
    `overwrite`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ConfigError(
            f"--output {folder}: cannot be used ({error.strerror}); name another folder"
        ) from error
    ours = RECORD in there or DESCRIPTION in there
    if there and not ours:
        raise ConfigError(f"--output {folder}: is not empty, and no model; name another folder")
    if there and not overwrite:
        raise ConfigError(f"--output {folder}: holds a model; add --overwrite, or name another folder")
    for path in folder.iterdir():  # else the search would go on with what it finds
        if path.name in OWN_FILES or path.suffix == ".safetensors":
            path.unlink()
        elif path.is_dir() and path.name.startswith(MEMBER):
            shutil.rmtree(path)
    return folder.resolve()


def _decode(
    dataset: Path, options: FitOptions, budget: TimeBudget, report: Report, on_progress: Progress
) -> tuple[list[DecodedDataset], Preparation]:
    """The images under a folder, as many as there is time for, prepared alike. What was odd is reported."""
    comparing = budget.share(DOUBLES_SHARE)
    source = set_doubles_aside(read_source(dataset), lambda: comparing.left_s() <= 0)
    px = options.image_size
    if px == "auto":
        px = choose_image_size(source, MOST_WAYS * (QUERIES + MOST_SHOTS), options.memory_budget)
    datasets = list(source.datasets.values())
    preparation, lines = choose_preparation(datasets, px)
    about: list[str] = []
    if options.image_shape == "auto" and not source.is_metadl_root:
        preset, trying = options.backbones or options.preset or "auto", budget.share(SHAPE_SHARE)
        preparation, about = choose_shape_of_datasets(datasets, preparation, preset, trying)
    elif options.image_shape != "auto":
        preparation = replace(preparation, shape=options.image_shape)
    for line in summarise([*source.notes, *lines, *about]):
        report(line)
    decoded = []
    share = _affordable_share(datasets, preparation, budget, report)
    for whole in datasets:
        each = whole
        if share < 1:
            rows = take_share_of_each_class(whole.labels, share, np.random.default_rng(options.seed))
            each = whole.without(np.setdiff1d(np.arange(len(whole.files)), rows).tolist())
        decoded.append(decode_dataset(each, preparation, default_cache_dir(), on_progress))
        for line in summarise(f"set aside: {line}" for line in decoded[-1].broken):
            report(line)
    return decoded, preparation


def _affordable_share(
    datasets: Sequence[Dataset], preparation: Preparation, budget: TimeBudget, report: Report
) -> float:
    """The share of the images that there is time to decode; 1 where the cache has them."""
    files = [file for each in datasets for file in each.files]
    if len(files) <= FEW_IMAGES:
        return 1.0
    pace, allowed_s = (
        measure_pace(dict.fromkeys(files, preparation)),
        DECODING_SHARE * max(budget.left_s(), 0.0),
    )
    whole_s = pace.decoding_s(len(files))
    if whole_s <= allowed_s:
        return 1.0
    if 2 * pace.key_s(len(files)) <= allowed_s:
        cache = default_cache_dir()
        if all(is_decoded(each, preparation, cache) for each in datasets):
            return 1.0
    share = allowed_s / whole_s
    report(
        f"decoding {len(files):,} images would take {whole_s:.0f} s of the {budget.left_s():.0f} s left: "
        f"{share:.0%} of each class are learned from; a longer --time-budget takes more"
    )
    return share


def _join(decoded: Sequence[DecodedDataset]) -> ImagePool:
    """The images of all datasets; those of one stay where they are, in a mapped file."""
    labels, dataset_of_class, first = [], [], 0
    for number, each in enumerate(decoded):
        labels.append(each.dataset.labels + first)
        dataset_of_class += [number] * len(each.dataset.class_names)
        first += len(each.dataset.class_names)
    images = decoded[0].images if len(decoded) == 1 else np.concatenate([each.images for each in decoded])
    names = tuple(each.dataset.name for each in decoded)
    return ImagePool(images, np.concatenate(labels), np.array(dataset_of_class), names)


def _class_names(decoded: Sequence[DecodedDataset]) -> list[str]:
    """Names of all classes, with that of their dataset where there are several."""
    several = len(decoded) > 1
    return [
        f"{each.dataset.name}/{name}" if several else name
        for each in decoded
        for name in each.dataset.class_names
    ]


def _is_enough(pool: ImagePool) -> bool:
    """Whether there is something to learn from: classes with two images or more, and images."""
    sizes = np.bincount(pool.labels, minlength=pool.classes)
    return int((sizes > 1).sum()) >= LEAST_CLASSES and len(pool.images) >= LEAST_IMAGES


def _learn(
    pool: ImagePool, options: FitOptions, folder: Path, budget: TimeBudget, report: Report
) -> dict[str, Any]:
    """Learn within the time, and leave the learner in `folder`; what accuracy to expect of it."""
    serving, settings = limits_of(options), settings_of(options)
    closing_s = CLOSING_S + CLOSING_SHARE * max(budget.left_s(), 0)
    learning = TimeBudget(budget.deadline - closing_s)
    total = options.memory_budget
    memory = MemoryBudget(int(total)) if total else MemoryBudget.of_machine()
    limits = Limits(learning, learning, memory)
    episodes = EpisodeSpec((2, min(MOST_WAYS, pool.classes)), (1, MOST_SHOTS), QUERIES, balanced=False)
    protocol = "within-domain" if len(pool.datasets) == 1 else "cross-domain"
    test = TestSpec(1, episodes, None, protocol, px=pool.images.shape[-1])
    system: Controller | FixedSystem
    gate = make_gate(serving, test, limits, SIX_MODES) if pool.classes < LEAST_TO_SEARCH else None
    if gate is not None:
        views = allowed_views(gate, _plain_views(settings), report)
        if (fewer := gate.why_fewer(views)) is not None:
            report(fewer)
        system = FixedSystem(
            test,
            limits,
            folder,
            report,
            0.0,
            views[0],
            options.seed,
            further=views[1:],
            modes=gate.modes(views),
        )
    else:
        system = Controller(settings, test, limits, folder, report, start_s=0.0)
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


def _plain_views(settings: Settings) -> tuple[View, ...]:
    """A few views to take without any evidence: the cheapest backbones at the usual size, and the first one larger.
    WeightsError where none has weights here."""
    names = settings.backbones or find_backbones("auto")
    return (*(View(name, FORMAT_PX) for name in names), View(names[0], PX))


def _examples(
    pool: ImagePool, names: Sequence[str], seed: int, each: int
) -> tuple[NDArray[np.uint8], list[str]]:
    """At most `each` images of each class [n, px, px, 3], and the names of their classes."""
    rng = np.random.default_rng(seed)
    rows = np.sort(np.concatenate([rng.permutation(of_class)[:each] for of_class in pool.rows_of_class]))
    return np.moveaxis(pool.images[rows], 1, -1), [names[label] for label in pool.labels[rows]]
