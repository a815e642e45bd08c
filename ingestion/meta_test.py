"""The meta-test phase: task after task, in a child that is replaced when it dies.

A failure only affects the task in which it happened.
"""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingestion.contract import Limits, TasksLeft, seconds_told, task_limit_s
from ingestion.errors import SubmissionError
from ingestion.isolation import TaskIsolation
from ingestion.outputs import check_predictions, write_atomically, write_predictions
from ingestion.prepare import Prepared
from ingestion.process import LaunchPlan, SubmissionProcess, after, earlier
from ingestion.query_order import QueryOrders, put_back
from ingestion.settings import Event, OnEvent
from ingestion.shared_images import SharedImages
from ingestion.tasks import TaskDraw

MAX_FAILED_STARTS = 2
START_LIMIT_S = 120.0
LEAST_TIME_S = 0.1
MEMORY_FILE = "memory.json"


@dataclass
class MetaTest:
    """Runs the tasks; `failures` gives the reason for every task that was not done. `ours`: processes that were there
    before. Close it at the end."""

    prepared: Prepared
    plan: LaunchPlan
    limits: Limits
    output_dir: Path
    on_event: OnEvent
    failures: dict[int, str]
    ours: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        largest = max(max(d.support_rows.size, d.query_rows.size) for d in self.prepared.draws)
        self._buffer = SharedImages(largest * 3 * self.prepared.px**2)
        images = [draw.support_rows.size + draw.query_rows.size for draw in self.prepared.draws]
        self._orders = QueryOrders.of(self.prepared.split.test, self.prepared.seed)
        self._images_left = np.cumsum(images[::-1])[::-1].tolist()
        self._child: SubmissionProcess | None = None
        self._ready = False
        self._fresh = True
        self._failed_starts = 0
        self._restart_s = 0.0
        self._isolation = TaskIsolation(self.plan, self.ours) if self.prepared.isolated else None
        self._hurried: float | None = None
        self._shown = ""

    def end_by(self, deadline: float) -> None:
        """There is less time than was told: everything is to be done by `deadline` (monotonic seconds)."""
        if self.limits.deadline is None or deadline < self.limits.deadline:
            self.limits, self._hurried = replace(self.limits, deadline=deadline), deadline

    def warm_up(self) -> tuple[int, ...]:
        """Start the child now, so that its imports run during meta-training; returns its process id, or nothing where
        it did not start, which is then tried again in meta-test."""
        try:
            return (self._spawn().pid,)
        except SubmissionError as error:
            self._end_child()
            self.on_event(Event("failure", f"{error.reason}; starting again in meta-test"))
            return ()

    def close(self) -> None:
        """End the child and free its memory. What all children used at most is told in `memory.json`."""
        self._end_child()
        self._buffer.close()
        if self._isolation and (price := self._isolation.price()):
            self.on_event(Event("note", price))
        if self.plan.peaks:
            try:
                write_atomically(self.output_dir / MEMORY_FILE, json.dumps(self.plan.peaks))
            except OSError as error:
                self.on_event(Event("note", f"{MEMORY_FILE} cannot be written ({error.strerror})"))

    def run(self) -> None:
        """Do all tasks that time allows; predictions are on disk as soon as they are made."""
        draws = self.prepared.draws
        for number, draw in enumerate(draws, start=1):
            reason = self._cannot_go_on()
            if reason:
                self._give_up(number, reason)
                return
            with self._isolation.a_task() if self._isolation else nullcontext():
                self._attempt(number, draw)
                if self._isolation:
                    self._end_child()
            self.on_event(Event("progress", done=number, total=len(draws)))

    def _cannot_go_on(self) -> str:
        left = self._left_s()
        if left is not None and left < LEAST_TIME_S:
            return "the time budget was used up before this task"
        if self._failed_starts >= MAX_FAILED_STARTS:
            return "the submission did not start for meta-test"
        return ""

    def _give_up(self, first: int, reason: str) -> None:
        rest = range(first, len(self.prepared.draws) + 1)
        self.failures.update(dict.fromkeys(rest, reason))
        self.on_event(Event("failure", f"tasks {first} to {rest[-1]}: {reason}"))

    def _left_s(self) -> float | None:
        return None if self.limits.deadline is None else self.limits.deadline - time.monotonic()

    def _attempt(self, number: int, draw: TaskDraw) -> None:
        try:
            order = self._orders.of_task(number, draw.query_rows.size)
            shown = replace(draw, query_rows=draw.query_rows[order], query_labels=draw.query_labels[order])
            predictions = self._ask(self._ready_child(), number, shown)
            self._save(number, put_back(check_predictions(predictions, shown), order))
        except SubmissionError as error:
            self.failures[number] = error.reason
            if error.traceback and error.traceback != self._shown:  # not the same one for each task
                self._shown = error.traceback
                self.on_event(Event("failure", error.traceback.rstrip()))
            self.on_event(Event("failure", f"task {number}: {error.reason}"))
            if error.fatal:
                self._end_child()

    def _save(self, number: int, predictions: NDArray[Any]) -> None:
        try:
            write_predictions(self.output_dir, number, predictions)
        except OSError as error:
            raise SubmissionError(
                f"its prediction cannot be written ({error.strerror}); free space in {self.output_dir}"
            ) from error

    def _spawn(self) -> SubmissionProcess:
        if self._isolation:
            self._isolation.renew()
            self._buffer.clear()
        plan = self._isolation.plan if self._isolation else self.plan
        self._child = child = SubmissionProcess(plan, fds=(self._buffer.fd,))
        self._ready, self._fresh = False, True
        child.send(
            "meta-test",
            self.limits.deadline,
            bundle=str(self.prepared.bundle),
            model_dir=str(self.plan.model_dir),
            buffer=self._buffer.fd,
        )
        return child

    def _ready_child(self) -> SubmissionProcess:
        """A child that has imported the submission; a failed start is tried again and fails no task."""
        while not (self._child is not None and self._ready):
            try:
                child = self._child or self._spawn()
                ready = child.await_reply("ready", self._until(START_LIMIT_S), "start for meta-test")
                self._restart_s = seconds_told(ready.fields.get("start_s"), START_LIMIT_S)
                child.check()  # it stood by, and may have been killed after it had said so
            except SubmissionError as error:
                self._end_child()
                self._failed_starts += 1
                if self._failed_starts >= MAX_FAILED_STARTS:
                    raise
                self.on_event(Event("failure", f"{error.reason}; starting again"))
                continue
            self._failed_starts = 0
            self._ready = True
        return self._child

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _until(self, seconds: float | None) -> float | None:
        return earlier(self.limits.deadline, after(seconds))

    def _ask(self, child: SubmissionProcess, number: int, draw: TaskDraw) -> NDArray[Any] | None:
        tasks_left = len(self.prepared.draws) - number + 1
        part = self.prepared.split.test[draw.dataset]
        first = self._fresh and (number == 1 or not self._isolation)
        left = self._left_s()
        limit = task_limit_s(self.limits.max_task_s, left, tasks_left, first=first, restart_s=self._restart_s)
        if limit is not None and left is not None:
            limit = min(limit, left)
        child.send(
            "task",
            self.limits.deadline,
            shape=self._buffer.put(*self.prepared.task_images(draw, draw.support_rows)),
            labels=draw.support_labels.tolist(),
            original_labels=np.asarray(part.labels[draw.support_rows]).tolist(),
            ways=draw.ways,
            shots=draw.shots,
            left=asdict(TasksLeft(tasks_left, self._images_left[number - 1], limit, self._hurried)),
        )
        left = self._left_s()
        load_s = None if left is None else max(left / (2 if self._fresh else 3), 5)
        child.await_reply("loaded", self._until(load_s), "load")
        with self._isolation.answering() if self._isolation else nullcontext():
            predictions = self._answer(child, draw, limit)
        self._fresh = False
        return predictions

    def _answer(self, child: SubmissionProcess, draw: TaskDraw, limit_s: float | None) -> NDArray[Any] | None:
        """What a learner that is loaded predicts within the limit."""
        until = self._until(limit_s)
        child.await_reply("fitted", until, f"fit (limit {limit_s or 0:.1f} s)")
        child.send(
            "query",
            self.limits.deadline,
            shape=self._buffer.put(*self.prepared.task_images(draw, draw.query_rows)),
        )
        return child.await_reply("predictions", until, f"predict (limit {limit_s or 0:.1f} s)").array
