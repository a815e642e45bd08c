"""What learners gain from training, on held-out classes, compared with an independent implementation.

    python benchmarks/learners.py --data DIR [--quick] [--json FILE [--resume]] [--markdown FILE] [--jobs 2]

DIR holds datasets in Meta-Album layout. Tasks (`--ways`, `--shots`, 5 queries a class) over test classes, the same
for all learners; accuracies are normalised (0 % is chance), intervals are those over tasks. The comparison
with another implementation of prototypical networks needs `pip install easyfsl --no-deps`.

`--class-split FILE --datasets NAME` names the classes to fit, to validate and to test on, in the forms that
`autometa run` takes. With `--rotations` each class to fit on counts as four, by its rotations (Vinyals et al. 2016,
on Omniglot). With `--steps`, `--meta-batch` and no `--seconds` a training is as long as in papers; `--checkpoints`
outlive a kill.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from _learner_data import Dataset, compare_sampling, float64_difference, same_steps
from _learner_report import Report, Row, row
from _learner_settings import Settings, split_of_one
from _learner_units import FROM_SCRATCH, OVERRIDES, REFERENCE, Unit

from autometa.core.budget import TimeBudget
from autometa.data.episodes import Episode
from autometa.evaluation.accuracy import Scores, interval95
from autometa.evaluation.validation_episodes import ValidationEpisodes
from autometa.learners.base import EpisodicLearner
from autometa.learners.encoder import SCRATCH
from autometa.learners.recipe import LEARNERS, build_learner, find_learner
from autometa.learners.training import Training, Validation
from ingestion import InputError

TIMED = 20


def episode_s(learner: EpisodicLearner, data: Dataset, tasks: Sequence[Episode]) -> float:
    """Median seconds from the uint8 images of a test episode to its answer, one episode at a time."""
    times = []
    for task in tasks:
        s, q = len(task.support_rows), len(task.query_rows)
        images = data.pool.images[np.concatenate([task.support_rows, task.query_rows])]
        own = replace(task, support_rows=np.arange(s), query_rows=np.arange(s, s + q))
        began = time.perf_counter()
        learner.validate(learner.encoder.prepare(images), ValidationEpisodes([own]))
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def points_gained(after: Scores, before: Scores) -> dict[str, float]:
    """Points that answers to the same tasks are better by, and the interval of that over tasks."""
    return {"points": float((after - before).mean()), "points_ci95": interval95(after - before)}


def measure_learner(unit: Unit, settings: Settings) -> list[Row]:
    """Accuracies on the test tasks before and after training, averaged over seeds; seconds of an episode."""
    data = settings.dataset(unit.dataset)
    tests, validations = data.test_tasks(settings.tests), data.validation_tasks(settings.validations)
    found: list[tuple[Scores, Scores]] = []
    steps, ended = [], []
    for seed in settings.seeds:
        recipe = unit.recipe(settings.channels, settings.inner_steps, seed=seed, **settings.training())
        learner = build_learner(recipe)
        encoder = recipe.encoder.model_copy(update=dict(find_learner(unit.learner).encoder))
        inputs = settings.inputs(unit.dataset, encoder)
        before = learner.validate(inputs, tests).accuracies
        validation, budget = Validation(inputs, validations), TimeBudget.of(settings.seconds)
        source = data.source(inputs, recipe)
        place = settings.checkpoints and settings.checkpoints / unit.name(f"seed{seed}")
        training = Training(learner, source, validation, recipe.training, budget, checkpoint=place)
        record = training.run()
        found.append((before, learner.validate(inputs, tests).accuracies))
        steps.append(record.steps)
        ended.append(f"{record.ended} after {record.seconds:.0f} s")
    untrained, trained = (100 * np.stack(part) for part in zip(*found, strict=True))
    note = f"{', '.join(map(str, steps))} steps, {', '.join(ended)}"
    seconds = episode_s(learner, data, tests.episodes[:TIMED])
    return [*accuracy_rows(unit, untrained, trained, note), row(unit.name("episode_s"), seconds, "s")]


def accuracy_rows(unit: Unit, untrained: Scores, trained: Scores, note: str) -> list[Row]:
    """Accuracies in % [seeds, tasks] on the same tasks before and after training, averaged over seeds, and the gain;
    `seeds` has the mean of each."""
    before, after = untrained.mean(axis=0), trained.mean(axis=0)
    gain, seeds = points_gained(after, before), [round(float(one.mean()), 1) for one in trained]
    note = f"{gain['points']:+.1f} ± {gain['points_ci95']:.1f} points, {note}, seeds {seeds}"
    start, end = float(before.mean()), float(after.mean())
    first = [round(float(one.mean()), 1) for one in untrained]
    return [
        row(unit.name("untrained"), start, "%", ci95=interval95(before), seeds=first),
        row(unit.name("trained"), end, "%", start, ci95=interval95(after), seeds=seeds, **gain, note=note),
    ]


def measure_reference(unit: Unit, settings: Settings) -> list[Row]:
    """Ours and easyfsl's prototypical network from the same weights over the same steps, averaged over seeds;
    `float64` is the largest relative difference of their losses over some steps without rounding errors."""
    steps = settings.reference_steps
    data, found, exact = settings.dataset(unit.dataset), [], 0.0
    tests, validations = data.test_tasks(settings.tests), data.validation_tasks(settings.validations)
    for seed in settings.seeds:
        recipe = unit.recipe(
            settings.channels, seed=seed, max_steps=steps, validate_every=steps, patience=steps
        )
        inputs = settings.inputs(unit.dataset, recipe.encoder)
        exact = max(exact, float64_difference(recipe, data.source(inputs, recipe)))
        found.append(same_steps(recipe, data, inputs, tests, validations))
    ours, theirs = (100 * np.mean(part, axis=0) for part in zip(*found, strict=True))
    gain = points_gained(ours, theirs)
    note = f"ours {gain['points']:+.2f} ± {gain['points_ci95']:.2f} points after {steps} steps, losses in float64 "
    more = {"ci95": interval95(theirs), **gain, "float64": exact, "note": f"{note}within {exact:.0e}"}
    return [row(unit.name("reference"), float(theirs.mean()), "%", float(ours.mean()), **more)]


def measure(unit: Unit, settings: Settings) -> list[Row]:
    """The rows of a unit."""
    if unit.encoder != REFERENCE:
        return measure_learner(unit, settings)
    if find_spec("easyfsl") is None:
        print(f"{unit.last}: skipped, easyfsl is not installed", flush=True)
        return []
    return measure_reference(unit, settings)


def measured(units: Sequence[Unit], settings: Settings, jobs: int, threads: int) -> Iterator[list[Row]]:
    """Yield the rows of all units as they finish, in this process or in several others."""
    if jobs == 1:
        yield from (measure(unit, settings) for unit in units)
        return
    context, setting = get_context("spawn"), torch.set_num_threads
    with ProcessPoolExecutor(jobs, context, initializer=setting, initargs=(threads,)) as pool:
        futures = [pool.submit(measure, unit, settings) for unit in units]
        yield from (future.result() for future in as_completed(futures))


def sampling(report: Report, datasets: Sequence[str], settings: Settings, batches: int) -> None:
    """Episodes per second from a pool, compared with a loader of single images, on the first suitable dataset."""
    name = "sampling/vs_per_image_loader"
    for dataset in datasets if name not in report.names else ():
        if speed := compare_sampling(settings.data / dataset, batches):
            note = f"{dataset}, equal pixels, pool made in {speed.building_s:.1f} s"
            report.add([row(name, speed.pool, "episodes/s", speed.per_image, note=note)])
            return
        print(f"{name}: {dataset} does not have five classes of 20 images", flush=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of datasets in Meta-Album layout")
    parser.add_argument(
        "--quick", action="store_true", help="one dataset, Conv-4, 3 s a learner, fewer tasks"
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument(
        "--resume", action="store_true", help="keep the results in that file and measure the rest"
    )
    parser.add_argument("--markdown", type=Path, help="also write a table to this file")
    parser.add_argument("--datasets", default="SCRIPTS,ICONS,FLAGS")
    parser.add_argument(
        "--class-split",
        type=Path,
        help="classes to fit, validate and test on of the one dataset, JSON or folder",
    )
    parser.add_argument(
        "--rotations", action="store_true", help="count each class to fit on as four, by its rotations"
    )
    parser.add_argument("--learners", default=",".join(LEARNERS))
    parser.add_argument("--encoders", default="conv4,tf_efficientnet_lite0")
    parser.add_argument("--ways", type=int, default=5, help="of tasks")
    parser.add_argument("--shots", type=int, default=3, help="of tasks")
    parser.add_argument("--tests", type=int, help="test tasks; 400 by default, 100 if quick")
    parser.add_argument(
        "--seconds", type=float, help="of training; 45 by default, 3 if quick, any with --steps"
    )
    parser.add_argument("--steps", type=int, help="of training, at most")
    parser.add_argument("--meta-batch", type=int, help="episodes of a step; as in the recipes by default")
    parser.add_argument("--channels", type=int, help="of networks from scratch; 64 by default")
    parser.add_argument("--inner-steps", type=int, help="of gradient-based learners, in training and at test")
    parser.add_argument("--checkpoints", type=Path, help="folder for trainings that go on after a kill")
    parser.add_argument("--seeds", default="0", help="of training; results are averaged over them")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--threads", type=int, help="of each process; all cores, or 1 with several jobs")
    return parser.parse_args()


def list_units(datasets: Sequence[str], encoders: Sequence[str], learners: Sequence[str]) -> list[Unit]:
    """All measurements, dataset by dataset."""
    units = [
        Unit(d, e, learner)
        for d in datasets
        for e in encoders
        for learner in learners
        if e in SCRATCH or learner not in FROM_SCRATCH
    ]
    if "prototypical" in learners and "conv4" in encoders:
        units += [Unit(d, REFERENCE, "prototypical") for d in datasets]
    return sorted(units, key=lambda unit: datasets.index(unit.dataset))


def main() -> None:
    """Run everything that the arguments ask for."""
    options = arguments()
    quick = options.quick
    datasets, encoders, learners = (
        text.split(",") for text in (options.datasets, options.encoders, options.learners)
    )
    if quick:
        datasets, encoders = datasets[:1], ["conv4"]
    for learner in learners:
        find_learner(learner)
    seconds = options.seconds or (math.inf if options.steps else 3.0 if quick else 45.0)
    seeds, counts = (
        tuple(int(s) for s in options.seeds.split(",")),
        (100, 40, 30) if quick else (400, 150, 300),
    )
    counts = (options.tests or counts[0], *counts[1:])
    settings = Settings(
        options.data,
        seconds,
        seeds,
        *counts,
        options.ways,
        options.shots,
        steps=options.steps,
        meta_batch=options.meta_batch,
        channels=options.channels,
        inner_steps=options.inner_steps,
        checkpoints=options.checkpoints,
        split=split_of_one(options.class_split, datasets),
        rotates=options.rotations,
    )
    threads = options.threads or (1 if options.jobs > 1 else torch.get_num_threads())
    torch.set_num_threads(threads)
    report = Report(options.json, str(settings), resume=options.resume)
    sampling(report, datasets, settings, 1 if quick else 5)
    units = [unit for unit in list_units(datasets, encoders, learners) if unit.last not in report.names]
    for rows in measured(units, settings, options.jobs, threads):
        report.add(rows)
    if options.markdown:
        options.markdown.write_text(report.markdown(OVERRIDES), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from error
