"""A meta-batch task by task, a task on every core, or all tasks at once under `vmap`: which is fastest is
measured, not known.

With weights of its own for every task, a convolution under `vmap` is a grouped one, which is slow on a CPU;
networks without convolutions gain from it, and GPUs, which small tasks leave idle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.func import vmap

from autometa.core.budget import stopwatch
from autometa.core.chunks import fits_memory
from autometa.core.errors import BudgetExhausted
from autometa.learners.base import copy_gradients, restore_gradients
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.norm import under_vmap
from autometa.learners.gradient.parallel import map_on_cores
from autometa.learners.gradient.tasks import Task

Accumulate = Callable[[Any, InputEpisodes], float]
"""Adds the gradients of a learner's mean task loss to its parameters; gives the loss."""
CHUNK = 4
"""Tasks at once on a CPU: more fall out of its caches."""
TaskMode = Literal["loop", "cores", "vmap"]
PROBED, ROUNDS = 4, 3
"""Tasks by which the modes are measured, in so many rounds."""


def is_uniform(episodes: InputEpisodes) -> bool:
    """Whether all episodes have the same ways and shots, so that nothing is padded."""
    whole = bool((episodes.support_labels >= 0).all()) and bool((episodes.query_labels >= 0).all())
    return whole and bool((episodes.ways == episodes.ways[0]).all())


def accumulate_in_loop(learner: Any, episodes: InputEpisodes) -> float:
    """One task after the other."""
    total = 0.0
    for place in range(len(episodes.ways)):
        loss = learner.task_loss(Task.of(episodes, place)) / len(episodes.ways)
        loss.backward()
        total += float(loss.detach())
    return total


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


def accumulate_vmapped(learner: Any, episodes: InputEpisodes) -> float:
    """All tasks of a uniform batch under `vmap`; in ever smaller chunks where memory is too small."""
    tasks, ways = len(episodes.ways), int(episodes.ways[0])
    chunk = tasks if episodes.query.is_cuda else CHUNK

    def task_loss(
        support: torch.Tensor, labels: torch.Tensor, query: torch.Tensor, query_labels: torch.Tensor
    ) -> torch.Tensor:
        loss: torch.Tensor = learner.task_loss(Task(support, labels, query, query_labels, ways))
        return loss

    tensors = (episodes.support, episodes.support_labels, episodes.query, episodes.query_labels)
    before = copy_gradients(learner)

    def accumulate() -> float:
        return sum(_accumulate_chunk(task_loss, tensors, start, chunk) for start in range(0, tasks, chunk))

    with under_vmap(learner):
        while True:
            fits, loss, error = fits_memory(accumulate)
            if fits:
                return loss or 0.0
            restore_gradients(learner, before)
            if chunk == 1:
                raise BudgetExhausted(f"not enough memory for a single task ({error})")
            chunk //= 2


def _accumulate_chunk(
    task_loss: Callable[..., torch.Tensor], tensors: tuple[torch.Tensor, ...], start: int, size: int
) -> float:
    """What `size` tasks from `start` on add to the gradients and to the mean loss."""
    losses = vmap(task_loss, randomness="different")(*(tensor[start : start + size] for tensor in tensors))
    loss = losses.sum() / len(tensors[0])
    loss.backward()
    return float(loss.detach())


def find_fastest(
    learner: Any, episodes: InputEpisodes, wanted: TaskMode | Literal["auto"] = "auto"
) -> Accumulate:
    """The wanted mode, or the one that was fastest on the first few tasks of a uniform batch (the best of some
    rounds; the gradients of the learner are left as they were)."""
    if wanted != "auto":
        return MODES[wanted]
    candidates: list[Accumulate] = [accumulate_on_cores, accumulate_vmapped]
    if episodes.query.is_cuda:
        candidates = [accumulate_in_loop, accumulate_vmapped]
    elif episodes.query.ndim == 5 and episodes.query.shape[-1] * episodes.query.shape[-2] > 1:
        # `vmap` over convolutions was never faster on a CPU (`benchmarks/maml.py` has the row), and trying it takes
        # several times the memory
        return accumulate_on_cores
    few = episodes.part(0, PROBED)
    before = copy_gradients(learner)
    times: dict[Accumulate, float] = {}
    for _ in range(ROUNDS):
        for accumulate in candidates:
            elapsed = stopwatch()
            accumulate(learner, few)  # ends with a loss on the CPU, so that a GPU has finished too
            times[accumulate] = min(times.get(accumulate, float("inf")), elapsed())
    restore_gradients(learner, before)
    return min(times, key=lambda accumulate: times[accumulate])


MODES: dict[TaskMode, Accumulate] = {
    "loop": accumulate_in_loop,
    "cores": accumulate_on_cores,
    "vmap": accumulate_vmapped,
}
