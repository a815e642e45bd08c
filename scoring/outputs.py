"""The output folder and its files for programs: `scores.json`, `details.json`, `scores.txt`."""

import errno
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scoring.calibration import BINS, Reliability
from scoring.errors import OutputError
from scoring.metrics import MAIN_METRIC, Metric
from scoring.run_info import RunInfo
from scoring.summary import Group, Summary, TaskScore
from scoring.text import safe_keys, short_prefixes

_ERROR_KEY = "expected_calibration_error"
_FIXED = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)
"""What renaming a folder fails with that is a mount point, or whose parent may not be changed."""
_OWN_FILES = ("scores.json", "scores.txt", "details.json", "report.html", "detailed_results.html", "plots")


@dataclass(frozen=True)
class Result:
    """All results of a scoring run, for the writers of files."""

    summary: Summary
    tasks: tuple[TaskScore, ...]
    metrics: tuple[Metric, ...]
    run: RunInfo
    seed: int | None
    notes: tuple[str, ...]

    @property
    def calibration(self) -> bool:
        """Whether to report calibration: not if only the main metric was asked for."""
        return len(self.metrics) > 1


def prepare_folder(folder: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Make sure that `folder` exists and is empty.

    A folder with content is renamed `<folder>_<yy-mm-dd-HH-MM-SS>`, or, with `overwrite`, emptied if it holds a
    `scores.txt`. One that cannot be renamed, such as the mount point of a platform, loses what an earlier scoring
    left there and keeps everything else. Raises OutputError if `folder` is a file, holds one of `inputs`, should be
    emptied but is no old scoring output, or cannot be changed.
    """
    for path in inputs:
        if path.resolve().is_relative_to(folder.resolve()):
            raise OutputError(
                f"the output folder {folder} holds an input of the scoring, {path}: choose another"
            )
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"the output folder {folder} is a file")
        if folder.is_dir() and any(folder.iterdir()):
            if overwrite:
                _empty(folder)
            else:
                _set_aside(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the output folder {folder} cannot be prepared: {error}") from error


def _set_aside(folder: Path) -> None:
    try:
        folder.rename(_free_name(folder))
    except OSError as error:
        if error.errno not in _FIXED:
            raise
        for entry in folder.iterdir():
            if entry.name in _OWN_FILES:
                _delete(entry)


def _delete(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def _empty(folder: Path) -> None:
    if not (folder / "scores.txt").is_file():
        raise OutputError(
            f"the output folder {folder} is not empty and has no scores.txt, so it is no old scoring output: "
            "empty it yourself, choose another, or pass --overwrite_previous_results=False to have it renamed"
        )
    for entry in folder.iterdir():
        _delete(entry)


def _free_name(folder: Path) -> Path:
    base = f"{folder.resolve().name}_{time.strftime('%y-%m-%d-%H-%M-%S')}"
    parent, name, count = folder.resolve().parent, base, 1
    while (parent / name).exists():
        count += 1
        name = f"{base}_{count}"
    return parent / name


def scores_json(result: Result) -> str:
    """Return the flat table of numbers that Codabench reads, one key for each leaderboard column.

    `dataset_{i}` repeats the main metric of a dataset under a key that does not depend on its name. An unknown
    calibration error has no key, since any number would look like a good or a bad one. Keys have at most 36
    characters, the most that Codabench takes: long names of datasets are cut.
    """
    overall, run = result.summary.overall, result.run
    main = overall.estimates[MAIN_METRIC.key]
    scores: dict[str, float] = {"normalized_accuracy": main.mean, "normalized_accuracy_ci95": main.ci95}
    scores |= {metric.key: overall.estimates[metric.key].mean for metric in result.metrics}
    scores |= {"tasks": overall.tasks, "tasks_missing": overall.missing}
    scores |= {"duration_s": run.duration_s or 0.0, "time_budget_s": run.time_budget_s or 0.0}
    keys = safe_keys([group.name for group in result.summary.datasets])
    means, widths = _keys(keys, "_normalized_accuracy"), _keys(keys, "_normalized_accuracy_ci95")
    for number, group in enumerate(result.summary.datasets, start=1):
        main = group.estimates[MAIN_METRIC.key]
        scores[f"dataset_{number}"] = main.mean
        scores[means[number - 1]] = main.mean
        scores[widths[number - 1]] = main.ci95
    if result.calibration:
        named = _keys(keys, f"_{_ERROR_KEY}")
        for key, group in zip((_ERROR_KEY, *named), (overall, *result.summary.datasets), strict=True):
            if (error := group.reliability.expected_error) is not None:
                scores[key] = error
    return json.dumps(scores, indent=2, allow_nan=False) + "\n"


def _keys(names: list[str], suffix: str) -> list[str]:
    """The keys of all datasets with a suffix."""
    return [prefix + suffix for prefix in short_prefixes(names, suffix)]


def details_json(result: Result) -> str:
    """Return everything: groups with intervals, each task, failures, and the information about the run."""
    summary = result.summary
    details = {
        "format": "autometa-scores-1",
        "main_metric": MAIN_METRIC.key,
        "confidence": 0.95,
        "overall": _group(summary.overall),
        "datasets": {group.name: _group(group) for group in summary.datasets},
        "ways": {group.name: _group(group) for group in summary.ways},
        "shots": {group.name: _group(group) for group in summary.shots},
        "calibration": _calibration(summary) if result.calibration else None,
        "tasks": [_task(task) for task in result.tasks],
        "failures": [
            {"task": task.task, "dataset": task.dataset, "reason": task.reason}
            for task in result.tasks
            if task.reason is not None
        ],
        "run": _run(result),
        "notes": list(result.notes),
    }
    return json.dumps(details, indent=1, allow_nan=False) + "\n"


def _group(group: Group) -> dict[str, Any]:
    metrics = {key: asdict(estimate) for key, estimate in group.estimates.items()}
    return {"tasks": group.tasks, "missing": group.missing, "metrics": metrics}


def _task(task: TaskScore) -> dict[str, Any]:
    row = asdict(task)
    row["metrics"] = row.pop("values")
    del row["reliability"], row["predicted"]
    return row


def _calibration(summary: Summary) -> dict[str, Any]:
    overall = summary.overall.reliability
    bins = [
        {"above": i / BINS, "queries": int(count), "confidence": confidence / count, "accuracy": hits / count}
        for i, (count, confidence, hits) in enumerate(
            zip(overall.counts, overall.confidences, overall.hits, strict=True)
        )
        if count
    ]
    datasets = {group.name: _reliability(group.reliability) for group in summary.datasets}
    return {"overall": _reliability(overall), "datasets": datasets, "bins": bins}


def _reliability(reliability: Reliability) -> dict[str, Any]:
    return {
        "expected_calibration_error": reliability.expected_error,
        "confidence": reliability.confidence,
        "accuracy": reliability.accuracy,
        "queries": reliability.queries,
        "unanswered": reliability.unanswered,
        "no_probabilities": reliability.no_probabilities,
    }


def _run(result: Result) -> dict[str, Any]:
    run = asdict(result.run)
    run["failures"] = {str(task): reason for task, reason in result.run.failures.items()}
    run["stages"] = [{"name": name, "seconds": seconds} for name, seconds in result.run.stages]
    run["truth_seed"] = result.seed
    return run


def scores_txt(result: Result) -> str:
    """Return `key: value` lines: keys, order and last line without a line end as in the original program."""
    summary = result.summary
    blocks = [("overall_score", "overall_", summary.overall)]
    blocks += [(f"dataset_{i}", f"dataset_{i}_", group) for i, group in enumerate(summary.datasets, start=1)]
    for unit, groups in (("ways", summary.ways), ("shot", summary.shots)):
        prefixes = [f"{group.name}_{unit}_" for group in groups]
        blocks += [
            (f"{prefix}{MAIN_METRIC.slug}", prefix, group)
            for prefix, group in zip(prefixes, groups, strict=True)
        ]
    lines = []
    for main_key, prefix, group in blocks:
        for metric in result.metrics:
            key = main_key if metric == MAIN_METRIC else f"{prefix}{metric.slug}"
            lines.append(f"{key}: {group.estimates[metric.key].mean}")
    return "\n".join([*lines, f"duration: {result.run.duration_s or 0.0}"])
