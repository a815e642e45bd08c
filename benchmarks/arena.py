"""Bundles against each other: every dataset, budget and seed, under the same limits, on the same tasks.

    python benchmarks/arena.py --data DIR --results DIR --bundles autometa,prototypical --budgets 60,180 --seeds 0,1
    python benchmarks/arena.py --results DIR --report-only [--markdown FILE] [--plots DIR] [--json FILE]
    python benchmarks/arena.py --data DIR --results DIR --train A,B,C --test D,E
    python benchmarks/arena.py --quick

A unit is one run of `run_local.py`; its seed determines the split of the classes and the tasks. Results
stay in the results folder, and a second start measures only what is missing; Ctrl-C loses only the current runs.
--bundles, --datasets, --budgets and --seeds also restrict the report. With --train and --test a run meta-trains on
some datasets and is tested on others; it counts as a dataset called A+B+C->D+E.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from _arena_plots import write_plots
from _arena_report import CONTROLLER, markdown, rows
from _arena_results import Result
from _arena_runs import Runner, Unit, cross_domain, cross_domain_name, datasets_in, describe_sharing, stored
from _image_contents import find_shared_image, find_version
from _learner_report import Report

from autometa.core.errors import ConfigError
from autometa.core.options import RunOptions
from autometa.core.settings import validate_settings
from autometa.judging.images import fill_cache
from autometa.judging.submissions import bundle_name
from ingestion import InputError
from ingestion.terminal import prepare_process
from run_local import DEMO, find_submission

QUICK = {"bundles": "random,prototypical", "datasets": "LETTERS", "budgets": "20", "seeds": "0", "tasks": 10}
DEFAULTS = {
    "bundles": f"{CONTROLLER},all_views,strong,prototypical,random",
    "budgets": "60",
    "seeds": "0,1,2",
}
PASSED = {
    "tasks": "tasks-per-dataset",
    "ways": "ways",
    "shots": "shots",
    "queries": "query-per-class",
    "image_size": "image-size",
}
"""Options of every run, under their names in `run_local.py`."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        default=DEMO,
        help="folder of datasets in Meta-Album layout; the demo by default",
    )
    add(
        "--results", type=Path, help="folder of results; output/arena by default, a temporary folder if quick"
    )
    add("--bundles", help=f"baselines by name, others by path; {DEFAULTS['bundles']} by default")
    add("--datasets", help="all of --data by default")
    add("--train", help="datasets of --data for meta-training, with --test and without --datasets")
    add("--test", help="other datasets of --data, for meta-test")
    add("--budgets", help="seconds, or 10m, 2h; 60 by default")
    add("--seeds", help="of splits and tasks; 0,1,2 by default")
    add("--tasks", type=int, help="meta-test tasks of a dataset and seed; 30 by default, 10 if quick")
    add("--ways", default="2-20", help="classes per task")
    add("--shots", default="1-10", help="labelled images per class")
    add("--queries", type=int, default=5, help="query images per class")
    add("--image-size", default="128", help="pixels, or auto")
    add("--memory", default="4GB", help="budget of every run")
    add("--jobs", type=int, default=1, help="runs at a time; they share the cores")
    add("--retry-failed", action="store_true", help="measure failed runs again")
    add("--report-only", action="store_true", help="measure nothing, only report")
    add("--ours", help=f"the bundle that tables compare with the others; {CONTROLLER} by default")
    add("--markdown", type=Path, help="write tables to this file")
    add("--plots", type=Path, help="write plots to this folder")
    add("--json", type=Path, help="write the rows to this file")
    add("--quick", action="store_true", help="two baselines on one dataset of the demo for 20 s")
    options = parser.parse_args(given)
    for name, value in (QUICK if options.quick else {}).items():
        setattr(options, name, getattr(options, name) or value)
    options.tasks = options.tasks or 30
    options.ours = options.ours or ("prototypical" if options.quick else CONTROLLER)
    return options


def words(text: str | None) -> list[str]:
    """The parts of a comma-separated list."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def settings_of(options: argparse.Namespace) -> str:
    """The options that all runs share, as `run_local.py` takes them."""
    asked = {name: getattr(options, key) for key, name in PASSED.items()} | {"memory-budget": options.memory}
    return " ".join(f"--{name} {value}" for name, value in asked.items() if value is not None)


def budgets_of(options: argparse.Namespace, text: str) -> list[float]:
    """Budgets in seconds; ConfigError if a run would refuse one of them or another option."""
    parts = settings_of(options).split()
    shared = {name[2:].replace("-", "_"): value for name, value in zip(parts[::2], parts[1::2], strict=True)}
    checked = [
        validate_settings(RunOptions, shared | {"time_budget": budget, "seed": seed}, "options")
        for budget in words(text)
        for seed in words(options.seeds or DEFAULTS["seeds"])
    ]
    return list(dict.fromkeys(run.time_budget for run in checked))


def datasets_of(options: argparse.Namespace, folder: Path) -> list[Path]:
    """The named datasets of --data, or all; for --train and --test a folder of links in the folder of results.
    ConfigError lists the datasets of --data, or says which options contradict each other or share images."""
    names, train, test = named_datasets(options)
    there = datasets_in(options.data)
    if unknown := [name for name in (*names, *train, *test) if name not in there]:
        raise ConfigError(f"no dataset {', '.join(unknown)}: {options.data} has {', '.join(there) or 'none'}")
    if not there:
        raise ConfigError(f"--data {options.data}: holds no folder with a labels.csv")
    if train or test:
        refuse_shared_images([options.data / name for name in train], [options.data / name for name in test])
        return [cross_domain(options.data, train, test, folder / "cross-domain")]
    return [options.data / name for name in names or there]


def refuse_shared_images(train: Sequence[Path], test: Sequence[Path]) -> None:
    """ConfigError where datasets for meta-test have an image file of those for meta-training, whatever the names, or
    show their pictures in another size."""
    if shared := find_shared_image(train, test):
        raise ConfigError(
            f"--train and --test: {shared[0]} and {shared[1]} are the same image; leave one of them out"
        )
    if versions := find_version(train, test):
        raise ConfigError(
            f"--train and --test: {versions[0].name} and {versions[1].name} show the same pictures; leave one out"
        )


def named_datasets(options: argparse.Namespace) -> tuple[list[str], list[str], list[str]]:
    """--datasets, --train and --test; ConfigError if they contradict each other."""
    names, train, test = words(options.datasets), words(options.train), words(options.test)
    if bool(train) != bool(test) or (train and names):
        raise ConfigError("--train and --test: give both and no --datasets, or neither")
    if both := set(train) & set(test):
        raise ConfigError(f"--train and --test: {', '.join(sorted(both))} is in both")
    return names, train, test


def result_names(options: argparse.Namespace) -> list[str]:
    """What the datasets that the options name are called in results; empty: all."""
    names, train, test = named_datasets(options)
    return [cross_domain_name(train, test)] if train else names


def bundles_of(names: Iterable[str]) -> list[Path]:
    """The bundles, with unique names; ConfigError lists the baselines."""
    found: dict[str, Path] = {}
    for name in names:
        try:
            path = find_submission(name)
        except ConfigError as error:
            raise ConfigError(str(error).replace("--submission", "--bundles", 1)) from error
        own = bundle_name(path)
        if found.setdefault(own, path) != path:
            raise ConfigError(f"--bundles: {found[own]} and {path} have the same name")
    return list(found.values())


def units_of(options: argparse.Namespace, folder: Path) -> list[Unit]:
    """All units that the options ask for; links to datasets go into the folder of results. Bundles take turns, so
    that other load on the machine affects all of them."""
    bundles = bundles_of(words(options.bundles or DEFAULTS["bundles"]))
    datasets = datasets_of(options, folder)
    budgets = budgets_of(options, options.budgets or DEFAULTS["budgets"])
    seeds = [int(seed) for seed in words(options.seeds or DEFAULTS["seeds"])]
    return [Unit(b, d, t, s) for s in seeds for t in budgets for d in datasets for b in bundles]


def decode(datasets: Iterable[Path], image_size: str) -> None:
    """Fill the cache of images, so that the first run on a dataset is not slower than the others; with `auto`, for
    the size that images of a folder get in a run without a memory budget."""
    for folder in datasets:
        try:
            fill_cache(folder, "auto" if image_size == "auto" else int(image_size))
        except InputError as error:
            print(f"{folder}: {error}", file=sys.stderr)


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Measure the units that have no result. ValueError if other results were measured with other settings or
    threads, or with another number of runs at a time."""
    units, settings, known = units_of(options, folder), settings_of(options), stored(folder)
    sharing = describe_sharing(options.jobs)
    refuse_others(folder, settings, {result.settings for result in known.values()})
    refuse_others(folder, sharing, {result.sharing for result in known.values() if result.sharing})
    missing = [
        unit for unit in units if unit.file not in known or (options.retry_failed and known[unit.file].failed)
    ]
    print(f"{len(units)} runs, {len(missing)} to measure", flush=True)
    decode(sorted({unit.dataset for unit in missing}), options.image_size)
    runner = Runner(folder, settings, sharing)
    for done, result in enumerate(runner.run_all(missing, options.jobs), start=1):
        score = f"{100 * result.mean:.1f} %" if result.accuracies else "not scored, counts as chance"
        failure = f"; failed: {result.reason}" if result.failed else ""
        print(f"[{done}/{len(missing)}] {result}: {score}, {result.wall_s:.1f} s{failure}", flush=True)


def refuse_others(folder: Path, own: str, known: set[str]) -> None:
    """ValueError if results in a folder were measured otherwise."""
    if other := sorted(known - {own}):
        raise ValueError(f"{folder}: measured with {other[0]}, not with {own}; name another --results")


def narrowed(results: Sequence[Result], options: argparse.Namespace) -> list[Result]:
    """The results that the options select. ValueError for an option without results."""
    bundles = [bundle_name(Path(name)) for name in words(options.bundles)]
    budgets = budgets_of(options, options.budgets or "")
    seeds = [int(seed) for seed in words(options.seeds)]
    chosen: dict[str, list[Any]] = {
        "bundle": bundles,
        "dataset": result_names(options),
        "budget_s": budgets,
        "seed": seeds,
    }
    for key, asked in chosen.items():
        there = {getattr(result, key) for result in results}
        if unknown := set(asked) - there:
            known = ", ".join(map(str, sorted(there)))
            raise ValueError(f"no result with {key} {unknown.pop()}; there are: {known or 'none'}")
    return [r for r in results if all(getattr(r, key) in of for key, of in chosen.items() if of)]


def report(options: argparse.Namespace, folder: Path) -> None:
    """Print and write the report. ValueError if there are no results, or they are not on the same tasks."""
    results = narrowed(list(stored(folder).values()), options)
    if not results:
        raise ValueError(f"{folder}: no results to report")
    lines = rows(results)
    Report(options.json, ", ".join(sorted({r.settings for r in results})), resume=False).add(lines)
    if options.markdown:
        options.markdown.write_text(markdown(results, options.ours), encoding="utf-8")
    if options.plots:
        write_plots(results, options.plots, options.ours)


def main() -> None:
    """Measure and report what the arguments ask for."""
    options = arguments()
    prepare_process()
    with tempfile.TemporaryDirectory(prefix="arena-") as passing:
        folder = options.results or (Path(passing) if options.quick else Path("output/arena"))
        try:
            if not options.report_only:
                measure(options, folder)
            report(options, folder)
        except (ConfigError, ValueError, OSError) as error:
            raise SystemExit(f"arena: {error}") from error
        except KeyboardInterrupt:
            raise SystemExit(130) from None


if __name__ == "__main__":
    main()
