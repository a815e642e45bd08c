"""One point of the grid as a run of ingestion and scoring, and what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autometa.bundles.shipped import find_bundle
from autometa.core.budget import MemoryBudget
from autometa.core.options import task_settings
from autometa.core.units import show_duration
from autometa.planning.serving_limits import to_variables
from autometa.tuning.collect import collect_point
from autometa.tuning.grid import Place, shares_work
from autometa.tuning.latency import measure_latencies
from autometa.tuning.options import TuneOptions, visible_devices
from autometa.tuning.point import Point
from ingestion import Event, IngestionSettings, check_inputs, check_submission
from ingestion import run as run_ingestion
from ingestion.disk import remove
from ingestion.meta_train import INTERRUPTED
from ingestion.outputs import RECORD_FILE
from ingestion.settings import OnEvent
from scoring import ScoreSummary, ScoringError, ScoringSettings, score

THREADS_VARIABLES = ("OMP_NUM_THREADS",)


@dataclass(frozen=True)
class Runner:
    """Runs points of a grid on a dataset. `start_s`: what starting a program takes, which a run alone pays; `shared`:
    the folder of work in common; `on_event` hears how a run goes."""

    dataset: Path
    options: TuneOptions
    start_s: float
    shared: Path
    on_event: OnEvent = lambda _: None
    on_start: Callable[[float], None] = lambda _: None

    def check(self, places: Sequence[Place], folder: Path) -> None:
        """Check the dataset and each submission, before anything runs or an earlier grid in `folder` is deleted.
        InputError names what cannot be used."""
        first = {place.submission: place for place in reversed(places)}
        check = check_inputs
        for place in first.values():
            check(self._settings(place, folder, time.monotonic(), None))
            check = check_submission  # the dataset is the same

    def run(self, place: Place, folder: Path, *, shares: bool = True) -> Point:
        """The point, from a run whose files are in `folder` afterwards; with `shares`, one of autometa itself takes
        over what others have done. KeyboardInterrupt where somebody ended it; InputError for a dataset or bundle that
        cannot be used."""
        remove(folder)
        own = shares and shares_work(place.submission)
        if own:
            self.shared.mkdir(parents=True, exist_ok=True)
        started = time.monotonic() - self.start_s
        self.on_start(started)
        settings = self._settings(place, folder, started, self.shared if own else None)
        with limited(place.threads, self.options.device, to_variables(self.options)):
            result = run_ingestion(settings, self.on_event)
            if result.interrupted or INTERRUPTED in result.notes:
                raise KeyboardInterrupt
            point = collect_point(place, result, _score(folder), shares=own)
            if point.model_bytes and shares_work(place.submission):
                point = self._with_latencies(point, folder / "ingestion")
        return self._judge_limits(point)

    def _settings(self, place: Place, folder: Path, started: float, shared: Path | None) -> IngestionSettings:
        options = self.options
        return IngestionSettings(
            input_data_dir=self.dataset,
            submission=find_bundle(place.submission, "--submission"),
            output_dir=folder / "ingestion",
            **task_settings(options) | {"seed": options.seed + place.repeat},
            time_budget_s=place.time_budget_s,
            memory_budget_bytes=place.memory_budget_bytes or MemoryBudget.of_machine().total_bytes,
            gpu_memory_budget_bytes=place.gpu_memory_budget_bytes,
            shared_dir=shared,
            started=started,
        )

    def _with_latencies(self, point: Point, folder: Path) -> Point:
        """Timed on the task that limits are of."""
        px = int(json.loads((folder / RECORD_FILE).read_text("utf-8"))["image_size"])
        self.on_event(Event("stage", "latency"))
        found = measure_latencies(folder / "model", px)
        if isinstance(found, str):
            self.on_event(Event("note", found))
            return point
        return point.model_copy(update={name: getattr(found, name) for name in type(found).model_fields})

    def _judge_limits(self, point: Point) -> Point:
        """Whether the learner keeps to the limits that the user sets."""
        options, broken = self.options, list[str]()
        for name, flag, limit_s in (
            ("predict_ms", "--infer-limit", options.infer_limit),
            ("adapt_ms", "--adapt-limit", options.adapt_limit),
        ):
            measured = getattr(point, name)
            if limit_s is not None and measured is not None and measured.p95 > 1000 * limit_s:
                what = "an answer" if name == "predict_ms" else "learning new classes"
                broken.append(f"{what} takes {measured.p95:.0f} ms (p95), {flag} is {show_duration(limit_s)}")
        size = options.max_model_size
        if size is not None and point.model_bytes is not None and point.model_bytes > size:
            broken.append(
                f"the learner has {point.model_bytes / 1e6:.0f} MB, --max-model-size is {size / 1e6:.0f} MB"
            )
        if broken and point.status == "ok":
            return point.model_copy(update={"status": "does_not_fit", "reason": "; ".join(broken)})
        return point


def _score(folder: Path) -> ScoreSummary | None:
    """None where ingestion left nothing that can be scored."""
    settings = ScoringSettings(
        results_dir=folder / "ingestion", output_dir_scoring=folder / "scoring", debug_mode=0
    )
    try:
        return score(settings)
    except (ScoringError, OSError):
        return None


@contextlib.contextmanager
def limited(
    threads: int, device: str | None, variables: Mapping[str, str | None] | None = None
) -> Iterator[None]:
    """Processes that are started within use so many processors and this device, and have these variables (None: they
    do not have it)."""
    changed = {**dict.fromkeys(THREADS_VARIABLES, str(threads)), **(variables or {})}
    if device is not None:
        changed["CUDA_VISIBLE_DEVICES"] = visible_devices(device)
    before = {name: os.environ.get(name) for name in changed}
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    _set_variables(changed)
    try:
        if cores and threads < len(cores):
            os.sched_setaffinity(0, cores[:threads])
        yield
    finally:
        _set_variables(before)
        if cores:
            os.sched_setaffinity(0, cores)


def _set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
