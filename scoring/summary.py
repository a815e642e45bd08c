"""From predictions to numbers: scores per task, then means with intervals per group."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scoring.calibration import Reliability, left_out, merge, reliability
from scoring.metrics import Labels, Metric, chance_metrics, task_metrics
from scoring.predictions import Prediction, Status, read_prediction
from scoring.run_info import RunInfo
from scoring.text import natural_key
from scoring.truth import Truth, TruthTask

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` tasks and the half-width of its 95 % Student-t interval (0 for one task)."""

    mean: float
    ci95: float
    n: int


@dataclass(frozen=True)
class TaskScore:
    """One scored task: `values` by metric key; `reason` says why it scores as chance, else None; `predicted` are the
    labels [n_query] that were answered, None if the prediction is not usable."""

    task: int
    dataset: str
    ways: int
    shots: int
    queries: int
    values: dict[str, float]
    status: Status
    reason: str | None
    reliability: Reliability
    predicted: Labels | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Group:
    """The tasks that share a dataset, a number of ways or of shots: `estimates` by metric key, and the
    `reliability` of the probabilities of all their queries."""

    name: str
    estimates: dict[str, Estimate]
    tasks: int
    missing: int
    reliability: Reliability


@dataclass(frozen=True)
class Summary:
    """All groups of a run: datasets in natural order, ways and shots ascending."""

    overall: Group
    datasets: tuple[Group, ...]
    ways: tuple[Group, ...]
    shots: tuple[Group, ...]


def estimate(values: Sequence[float]) -> Estimate:
    """Average one or more values; the interval uses the standard error with n−1."""
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return Estimate(mean, 0.0, n)
    from scipy.special import stdtrit  # noqa: PLC0415  (scipy is slow to import)

    quantile = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    return Estimate(mean, quantile * float(np.std(values, ddof=1)) / math.sqrt(n), n)


def score_tasks(
    results_dir: Path, truth: Truth, run: RunInfo, metrics: Sequence[Metric]
) -> tuple[TaskScore, ...]:
    """Read and score the prediction of every task; an unusable one scores as chance, with its reason."""
    return tuple(
        _score_task(
            task,
            read_prediction(results_dir / f"task_{task.task}.predict", len(task.labels), task.ways),
            run.failures.get(task.task),
            metrics,
        )
        for task in truth.tasks
    )


def _score_task(
    task: TruthTask, prediction: Prediction, failure: str | None, metrics: Sequence[Metric]
) -> TaskScore:
    if prediction.labels is None:
        values = chance_metrics(task.ways)
    else:
        values = task_metrics(task.labels, prediction.labels, task.ways)
    told = f": {failure}" if failure else ""
    reason = None if prediction.reason is None else f"{prediction.reason}{told}"
    kept = {metric.key: values[metric.key] for metric in metrics}
    return TaskScore(
        task=task.task,
        dataset=task.dataset,
        ways=task.ways,
        shots=task.shots,
        queries=len(task.labels),
        values=kept,
        status=prediction.status,
        reason=reason,
        reliability=_reliability(task, prediction),
        predicted=prediction.labels,
    )


def _reliability(task: TruthTask, prediction: Prediction) -> Reliability:
    if prediction.labels is None:
        return left_out(unanswered=len(task.labels))
    if prediction.scores is None:
        return left_out(no_probabilities=len(task.labels))
    return reliability(prediction.scores, prediction.labels, task.labels)


def summarise(tasks: Sequence[TaskScore]) -> Summary:
    """Aggregate one or more tasks: the plain mean over all, and per dataset, ways and shots."""
    return Summary(
        overall=_group("overall", tasks),
        datasets=_groups(tasks, lambda task: task.dataset),
        ways=_groups(tasks, lambda task: str(task.ways)),
        shots=_groups(tasks, lambda task: str(task.shots)),
    )


def _groups(tasks: Sequence[TaskScore], name_of: Callable[[TaskScore], str]) -> tuple[Group, ...]:
    members: dict[str, list[TaskScore]] = {}
    for task in tasks:
        members.setdefault(name_of(task), []).append(task)
    return tuple(_group(name, members[name]) for name in sorted(members, key=natural_key))


def _group(name: str, tasks: Sequence[TaskScore]) -> Group:
    estimates = {key: estimate([task.values[key] for task in tasks]) for key in tasks[0].values}
    missing = sum(task.reason is not None for task in tasks)
    return Group(name, estimates, len(tasks), missing, merge([task.reliability for task in tasks]))
