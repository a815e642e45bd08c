"""A point of a grid of budgets: what was asked for, and what came of it. These are the lines of `budget.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Status = Literal["ok", "does_not_fit", "failed", "inferred"]
"""`inferred`: not run, since a run with more memory is known to have been the same one."""


class Limits(BaseModel):
    """Where a point stands in the grid: its budgets. None: what the machine has free."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    time_budget_s: float
    memory_budget_bytes: int | None = None
    gpu_memory_budget_bytes: int | None = None
    threads: int = 1


class Quantiles(BaseModel):
    """Milliseconds of a kind of call: of calls once warm, and of the first one in a new process."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    p50: float
    p95: float
    p99: float
    cold: float


class Point(Limits):
    """What came of one run. Scores are normalised accuracies in per cent over all tasks; those per task are in the
    order of the tasks, which all points of a grid and a repeat share."""

    submission: str = "autometa"
    bundle: str = ""
    """A digest of the files of the submission."""
    repeat: int = 0
    status: Status = "ok"
    reason: str = ""
    score: float | None = None
    ci95: float | None = None
    gap_to_largest: float | None = None
    gap_ci95: float | None = None
    seconds: dict[str, float] = {}
    """By stage; `total` is the whole run. What the run was charged for work of an earlier run is part of it."""
    charged_s: float = 0.0
    """Of the total: not spent, since an earlier run did the work."""
    spent_s: float = 0.0
    """What it took here: the run without what was charged, scoring, and timing the learner."""
    predicted_s: dict[str, float] = {}
    first_learner_s: float | None = None
    peak_bytes: int | None = None
    predicted_peak_bytes: int | None = None
    gpu_peak_bytes: int | None = None
    adapt_ms: Quantiles | None = None
    predict_ms: Quantiles | None = None
    predict_batch_ms: Quantiles | None = None
    model_bytes: int | None = None
    chosen: list[str] = []
    """Views and copies of backbones that answer."""
    score_per_task: list[float] = []
    tasks: str = ""
    """A digest of the dataset, the seed, the protocol and the form of the tasks: points are paired
    where it is equal."""

    @property
    def limits(self) -> Limits:
        """Its place in the grid."""
        return Limits(**{name: getattr(self, name) for name in Limits.model_fields})

    @property
    def has_score(self) -> bool:
        """Whether it answers the question what a budget is worth."""
        return self.score is not None and self.status in ("ok", "inferred")

    @property
    def total_s(self) -> float | None:
        """Seconds of the whole run, as if it had been alone; images that an earlier run has decoded are in the cache
        also then."""
        return self.seconds.get("total")
