"""What ingestion tells a submission about its limits, through environment variables.

| variable | content |
|---|---|
| `METADL_TIME_BUDGET_S` | seconds for the whole run: start, meta-train and meta-test |
| `METADL_DEADLINE` | end of the run on the clock of `time.monotonic()` |
| `METADL_META_TRAIN_DEADLINE` | when meta-training is stopped at the latest, on the same clock |
| `METADL_MAX_TASK_S` | seconds that one meta-test task may take at most |
| `METADL_MEMORY_BYTES` | memory that all processes of the submission may use together |
| `METADL_GPU_MEMORY_BYTES` | memory on the GPU that they may use together, where the machine has one |
| `METADL_CORES` | processors that the submission may use: a sandbox may hide the limit of a container |
| `METADL_MODEL_DIR` | the folder that `save` and `load` get; what is saved there early is kept after a stop |
| `METADL_SHARED_DIR` | a folder for what several runs of the submission have in common, where there is one |
| `METADL_TEST_SPEC` | JSON, see `TestSpec` |
| `METADL_TASKS_LEFT` | meta-test tasks that are still to come, with the one at hand |
| `METADL_IMAGES_LEFT` | images of these tasks, repeats included |
| `METADL_TASK_LIMIT_S` | seconds that `fit` and `predict` of the task at hand may take together |

The last three are set anew before each task, and so is `METADL_DEADLINE` where a signal has left less time. Without
a limit the variable is absent. The original platform sets none of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path


@dataclass(frozen=True)
class TestSpec:
    """The declared meta-test: the number of tasks and their form. `images`: number of distinct images at most;
    `drawn_images`: number over all tasks, repeats included; `standby`: its process has already imported the
    submission. `isolated`: each task has a process of its own, which starts, loads the learner and finds nothing of
    the task before."""

    tasks: int
    datasets: int
    images: int
    drawn_images: int
    ways: tuple[int, int]
    shots: tuple[int, int]
    queries_per_class: int
    px: int
    protocol: str
    standby: bool
    balanced: bool = True
    isolated: bool = False

    __test__ = False  # not a test class for pytest


@dataclass(frozen=True)
class TasksLeft:
    """What is still to be answered in meta-test: `tasks`, with the one at hand, and their `images`, repeats included.
    A process that replaces another one has no other way to know. `limit_s`: seconds that the one at hand may take.
    `deadline`: the end of the run, where it is sooner than was told before."""

    tasks: int
    images: int
    limit_s: float | None = None
    deadline: float | None = None

    def variables(self) -> dict[str, str]:
        """The environment variables of the table above that are set before each task."""
        left = {"METADL_TASKS_LEFT": str(self.tasks), "METADL_IMAGES_LEFT": str(self.images)}
        if self.limit_s is not None:
            left["METADL_TASK_LIMIT_S"] = f"{self.limit_s:.3f}"
        if self.deadline is not None:
            left["METADL_DEADLINE"] = str(self.deadline)
        return left


@dataclass(frozen=True)
class Limits:
    """Deadlines are on the clock of `time.monotonic()`; None if there is no limit."""

    time_budget_s: float | None
    deadline: float | None
    meta_train_deadline: float | None
    max_task_s: float | None
    memory_bytes: int | None
    cores: int | None = None
    gpu_memory_bytes: int | None = None


def contract_variables(
    limits: Limits, model_dir: Path, spec: TestSpec, shared_dir: Path | None = None
) -> dict[str, str]:
    """The environment variables of the table above."""
    values = {
        "METADL_TIME_BUDGET_S": limits.time_budget_s,
        "METADL_DEADLINE": limits.deadline,
        "METADL_META_TRAIN_DEADLINE": limits.meta_train_deadline,
        "METADL_MAX_TASK_S": limits.max_task_s,
        "METADL_MEMORY_BYTES": limits.memory_bytes,
        "METADL_GPU_MEMORY_BYTES": limits.gpu_memory_bytes,
        "METADL_CORES": limits.cores,
        "METADL_MODEL_DIR": str(model_dir),
        "METADL_SHARED_DIR": shared_dir,
        "METADL_TEST_SPEC": dumps(asdict(spec)),
    }
    return {name: str(value) for name, value in values.items() if value is not None}


STANDBY_UP_TO_S = 600.0
STANDBY_LEAST_BYTES = 2 * 2**30


def wants_standby(time_budget_s: float | None, memory_bytes: int | None) -> bool:
    """Whether to start the process of meta-test during meta-training, so that its imports take no extra time: if the
    time budget is short and there is enough memory."""
    roomy = memory_bytes is None or memory_bytes >= STANDBY_LEAST_BYTES
    return roomy and time_budget_s is not None and time_budget_s <= STANDBY_UP_TO_S


ISOLATED_TASK_S = 3.0
"""For the start of a process for each task, at least."""


def meta_test_reserve_s(budget_s: float, tasks: int, *, isolated: bool = False) -> float:
    """Seconds at the end of the budget that are reserved for meta-test, whatever the submission does: the start of a
    process, of one for each task where they are `isolated`, and time for each task. A submission should plan to stop
    earlier than that."""
    task_s = 0.05 + (ISOLATED_TASK_S if isolated else 0.0)
    return min(max(0.15 * budget_s, 5.0 + task_s * tasks), 0.5 * budget_s)


def task_limit_s(
    max_task_s: float | None,
    left_s: float | None,
    tasks_left: int,
    *,
    first: bool = False,
    restart_s: float = 0.0,
) -> float | None:
    """Seconds that the next task may take: ten times its equal share of the time left, and 5 s at least.

    Unless it is the last one, at most half of the time left, so that one task that hangs does not use the time of the
    others. The `first` task of a process may take that half, since it loads and builds what all tasks need. Where the
    other half is too short for the start of another process (`restart_s`), ending this one helps no other task, so it
    may take all.
    """
    if left_s is None:
        return max_task_s
    fair = left_s if first else max(5.0, 10.0 * left_s / max(tasks_left, 1))
    if left_s / 2 <= restart_s:
        fair = left_s
    elif tasks_left > 1:
        fair = min(fair, left_s / 2)
    return fair if max_task_s is None else min(max_task_s, fair)


def seconds_told(value: object, most_s: float) -> float:
    """Seconds that a submission's process tells of itself: 0 for anything else than a number from 0 to `most_s`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 <= value <= most_s else 0.0
