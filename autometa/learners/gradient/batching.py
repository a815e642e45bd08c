"""A meta-batch task by task, a task on every core, or all tasks at once under `vmap`: which is fastest is
measured, not known.

With weights of its own for every task, a convolution under `vmap` is a grouped one, which is slow on a CPU;
networks without convolutions gain from it, and GPUs, which small tasks leave idle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.func import vmap

from autometa.core.budget import stopwatch
from autometa.core.chunks import in_chunks
from autometa.core.machine import free_bytes, starts_cold
from autometa.core.tensor_memory import measure_peak
from autometa.learners.base import snapshot_gradients
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.captured import CapturedTasks, Losses
from autometa.learners.gradient.norm import under_vmap
from autometa.learners.gradient.parallel import map_on_cores
from autometa.learners.gradient.task_memory import TaskMemory
from autometa.learners.gradient.tasks import Task

Accumulate = Callable[[Any, InputEpisodes], float]
"""Adds the gradients of a learner's mean task loss to its parameters; gives the loss."""
CHUNK = 4
"""Tasks at once on a CPU: more fall out of its caches."""
ROOM_SHARE = 0.7
"""Of the free memory of a GPU, for tasks at once."""
GRAPH_TIMES = 2.0
"""Memory of the chunk of a graph, as a multiple of that of one task: a graph keeps it, and gains little from more."""
TaskMode = Literal["loop", "cores", "vmap", "graph"]
PROBED, ROUNDS, RACE_S = 4, 3, 1.0
"""Tasks by which the modes are measured, in so many rounds, of which none begins after so many seconds on a CPU."""


def is_uniform(episodes: InputEpisodes) -> bool:
    """Whether all episodes have the same ways and shots, so that nothing is padded."""
    whole = bool((episodes.support_labels >= 0).all()) and bool((episodes.query_labels >= 0).all())
    return whole and bool((episodes.ways == episodes.ways[0]).all())


def accumulate_in_loop(learner: Any, episodes: InputEpisodes) -> float:
    """One task after the other. BudgetExhausted where memory is too small for one."""

    def work(place: int, _: int) -> float:
        loss = learner.task_loss(Task.of(episodes, place)) / len(episodes.ways)
        loss.backward()
        return float(loss.detach())

    return sum(in_chunks(work, len(episodes.ways), 1, item="task"))


def accumulate_on_cores(learner: Any, episodes: InputEpisodes) -> float:
    """As many tasks at a time as there are cores, summed in order."""
    trained = [p for p in learner.parameters() if p.requires_grad]

    def work(own: Any, place: int) -> tuple[float, tuple[torch.Tensor | None, ...]]:
        loss = own.task_loss(Task.of(episodes, place)) / len(episodes.ways)
        return float(loss.detach()), torch.autograd.grad(loss, trained, allow_unused=True)

    total = 0.0
    for loss, gradients in map_on_cores(learner, work, len(episodes.ways)):
        total += loss
        for parameter, gradient in zip(trained, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    return total


def accumulate_vmapped(learner: Any, episodes: InputEpisodes, chunk: int = CHUNK) -> float:
    """Tasks of a uniform batch under `vmap`, `chunk` at a time; in ever smaller chunks where memory is too small."""
    tensors, losses = task_tensors(episodes), losses_of(learner, episodes)
    parts = in_chunks(
        lambda start, stop: _accumulate_chunk(losses, tensors, start, stop),
        len(episodes.ways),
        chunk,
        item="task",
        snapshot=lambda: snapshot_gradients(learner.parameters()),
    )
    return sum(parts)


def task_tensors(episodes: InputEpisodes) -> tuple[torch.Tensor, ...]:
    """What `losses_of` takes of the tasks of a uniform batch."""
    return episodes.support, episodes.support_labels, episodes.query, episodes.query_labels


def losses_of(learner: Any, episodes: InputEpisodes) -> Losses:
    """The losses of tasks with the ways of a uniform batch, all at once."""
    ways = int(episodes.ways[0])

    def task_loss(
        support: torch.Tensor, labels: torch.Tensor, query: torch.Tensor, query_labels: torch.Tensor
    ) -> torch.Tensor:
        loss: torch.Tensor = learner.task_loss(Task(support, labels, query, query_labels, ways))
        return loss

    def losses(tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        with under_vmap(learner):
            found: torch.Tensor = vmap(task_loss, randomness="different")(*tensors)
        return found

    return losses


def _accumulate_chunk(losses: Losses, tensors: tuple[torch.Tensor, ...], start: int, stop: int) -> float:
    """What the tasks from `start` to `stop` add to the gradients and to the mean loss."""
    loss = losses(tuple(tensor[start:stop] for tensor in tensors)).sum() / len(tensors[0])
    loss.backward()
    return float(loss.detach())


class GpuTasks:
    """Uniform batches on a GPU, so many tasks at a time as its memory allows, by the peaks that one and two tasks of
    `episodes` have; as CUDA graphs of chunks (`captured`), of which fewer tasks are enough. `room` tells the bytes
    that are free. `most_times`: the most memory of a chunk, as a multiple of what one task takes (None: of a graph,
    `GRAPH_TIMES`)."""

    def __init__(
        self,
        learner: Any,
        episodes: InputEpisodes,
        *,
        room: Callable[[], float],
        captured: CapturedTasks | None = None,
        most_times: float | None = None,
        measure: Callable[[Callable[[], object]], int] | None = None,
    ) -> None:
        self._room, self.captured, self._most_times = room, captured, most_times
        measured = measure or (lambda work: measure_peak(work, episodes.query.device.type))
        restore = snapshot_gradients(learner.parameters())

        def peak_of(tasks: int) -> int:
            part = episodes.part(0, tasks)
            return measured(lambda: accumulate_vmapped(learner, part, tasks))

        if starts_cold(episodes.query.device.type):  # the first backward pass takes workspaces that stay
            accumulate_vmapped(learner, episodes.part(0, 1), 1)
        self.memory = TaskMemory.measure(peak_of, count_images(episodes))
        restore()

    def __call__(self, learner: Any, episodes: InputEpisodes) -> float:
        """Add the gradients of the mean loss; the loss."""
        graphs = None if self.captured is None or self.captured.broken else self.captured
        chunk = self.chunk(episodes, self._most_times or (GRAPH_TIMES if graphs else math.inf))
        if graphs:
            tensors, losses = task_tensors(episodes), losses_of(learner, episodes)
            ways = int(episodes.ways[0])
            if graphs.is_ready(losses, tensors, chunk, ways):
                return graphs.accumulate(tensors, chunk, ways)
        return accumulate_vmapped(learner, episodes, chunk)

    def chunk(self, episodes: InputEpisodes, most_times: float) -> int:
        """How many of these tasks to take at once, the same for all chunks but the last."""
        tasks = len(episodes.ways)
        most = self.memory.count_fitting(tasks, count_images(episodes), self._room(), most_times)
        return -(-tasks // -(-tasks // most))


def count_images(episodes: InputEpisodes) -> int:
    """Images of one task of a uniform batch."""
    return episodes.support_labels.shape[1] + episodes.query_labels.shape[1]


def build_gpu_tasks(learner: Any, episodes: InputEpisodes, wanted: str, most_times: float | None) -> GpuTasks:
    """Tasks at once on the GPU where the episodes are, within a share of what is free there."""
    captured = CapturedTasks(learner) if wanted in ("auto", "graph") and learner.capturable else None

    def room() -> float:
        return ROOM_SHARE * (free_bytes(episodes.query.device.type) or 0)

    return GpuTasks(learner, episodes, room=room, captured=captured, most_times=most_times)


def find_fastest(
    learner: Any,
    episodes: InputEpisodes,
    wanted: TaskMode | Literal["auto"] = "auto",
    most_times: float | None = None,
) -> Accumulate:
    """The wanted mode, or the one that was fastest in the best of some rounds: on a CPU with the first few tasks of a
    uniform batch, on a GPU with all. The gradients of the learner are left as they were. `most_times`: see
    `GpuTasks`."""
    candidates: list[Accumulate] = [accumulate_on_cores, accumulate_vmapped]
    few = episodes.part(0, PROBED)
    if episodes.query.is_cuda and wanted in ("auto", "vmap", "graph"):
        at_once = build_gpu_tasks(learner, episodes, wanted, most_times)
        if wanted != "auto":
            return at_once
        candidates, few = [accumulate_in_loop, at_once], episodes
    elif wanted != "auto":
        return MODES[wanted]
    elif episodes.query.ndim == 5 and episodes.query.shape[-1] * episodes.query.shape[-2] > 1:
        # `vmap` over convolutions was never faster on a CPU (`benchmarks/maml.py` has the row), and trying it takes
        # several times the memory
        return accumulate_on_cores
    restore, race = snapshot_gradients(learner.parameters()), stopwatch()
    times: dict[Accumulate, float] = {}
    for round_ in range(ROUNDS):
        if round_ and race() > RACE_S and not episodes.query.is_cuda:
            break
        for accumulate in candidates:
            elapsed = stopwatch()
            accumulate(learner, few)  # ends with a loss on the CPU, so that a GPU has finished too
            times[accumulate] = min(times.get(accumulate, float("inf")), elapsed())
    restore()
    return min(times, key=lambda accumulate: times[accumulate])


MODES: dict[TaskMode, Accumulate] = {
    "loop": accumulate_in_loop,
    "cores": accumulate_on_cores,
    "vmap": accumulate_vmapped,
    "graph": accumulate_vmapped,
}
