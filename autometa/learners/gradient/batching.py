"""A meta-batch task by task, a task on every core, or all tasks at once under `vmap`: which is fastest is
measured, not known.

With weights of its own for every task, a convolution under `vmap` is a grouped one, which a CPU does not do well;
networks without convolutions, and GPUs, which small tasks leave idle, gain from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.func import vmap

from autometa.core.budget import stopwatch
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.norm import under_vmap
from autometa.learners.gradient.parallel import map_on_cores
from autometa.learners.gradient.tasks import Task

Accumulate = Callable[[Any, InputEpisodes], float]
"""Adds the gradients of a learner's mean task loss to its parameters; gives the loss."""
CHUNK = 4
"""Tasks at once on a CPU: more fall out of its caches."""
Gradients = list[torch.Tensor | None]
TaskMode = Literal["loop", "cores", "vmap"]
PROBED = 4
"""Tasks by which the ways are measured."""
ROUNDS = 3


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
    """All tasks of a uniform batch under `vmap`; in ever smaller chunks where memory does not do."""
    with under_vmap(learner):
        return _all_at_once(learner, episodes)


def _all_at_once(learner: Any, episodes: InputEpisodes) -> float:
    ways = int(episodes.ways[0])
    chunk = len(episodes.ways) if episodes.query.is_cuda else CHUNK

    def one(
        support: torch.Tensor, labels: torch.Tensor, query: torch.Tensor, query_labels: torch.Tensor
    ) -> torch.Tensor:
        loss: torch.Tensor = learner.task_loss(Task(support, labels, query, query_labels, ways))
        return loss

    tensors = (episodes.support, episodes.support_labels, episodes.query, episodes.query_labels)
    held = _gradients(learner)
    while True:
        try:
            return sum(_chunk(one, tensors, start, chunk) for start in range(0, len(episodes.ways), chunk))
        except torch.OutOfMemoryError:
            if chunk == 1:
                raise
        chunk //= 2  # outside the handler, whose frames hold memory
        _restore_gradients(learner, held)


def _gradients(learner: Any) -> Gradients:
    """Copies of the gradients that are there."""
    return [None if p.grad is None else p.grad.clone() for p in learner.parameters()]


def _restore_gradients(learner: Any, held: Gradients) -> None:
    """Put copies of them back: backward passes add in place."""
    for parameter, gradient in zip(learner.parameters(), held, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()


def _chunk(
    one: Callable[..., torch.Tensor], tensors: tuple[torch.Tensor, ...], start: int, size: int
) -> float:
    losses = vmap(one, randomness="different")(*(tensor[start : start + size] for tensor in tensors))
    loss = losses.sum() / len(tensors[0])
    loss.backward()
    return float(loss.detach())


def find_fastest(
    learner: Any, episodes: InputEpisodes, wanted: TaskMode | Literal["auto"] = "auto"
) -> Accumulate:
    """The wanted way, or the one that was fastest on the first few tasks of a uniform batch (the best of some
    rounds; the gradients of the learner are left as they were)."""
    if wanted != "auto":
        return MODES[wanted]
    ways = _worth_trying(episodes.query)
    if len(ways) == 1:
        return ways[0]
    few = InputEpisodes(
        episodes.support[:PROBED],
        episodes.support_labels[:PROBED],
        episodes.query[:PROBED],
        episodes.query_labels[:PROBED],
        episodes.ways[:PROBED],
    )
    held = _gradients(learner)
    times: dict[Accumulate, float] = {}
    for _ in range(ROUNDS):
        for way in ways:
            elapsed = stopwatch()
            way(learner, few)  # ends with a loss on the CPU, so that a GPU has finished too
            times[way] = min(times.get(way, float("inf")), elapsed())
    _restore_gradients(learner, held)
    return min(times, key=lambda way: times[way])


def _worth_trying(query: torch.Tensor) -> tuple[Accumulate, ...]:
    """The ways to race for queries [b, q, ...]. Maps on a CPU have none: `vmap` over their convolutions was
    never the faster (`benchmarks/maml.py` has the row), and trying it takes several times the memory."""
    if query.is_cuda:
        return accumulate_in_loop, accumulate_vmapped
    maps = query.ndim == 5 and query.shape[-1] * query.shape[-2] > 1
    return (accumulate_on_cores,) if maps else (accumulate_on_cores, accumulate_vmapped)


MODES: dict[TaskMode, Accumulate] = {
    "loop": accumulate_in_loop,
    "cores": accumulate_on_cores,
    "vmap": accumulate_vmapped,
}
