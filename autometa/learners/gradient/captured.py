"""Gradients of a chunk of tasks as a CUDA graph: small chunks lose their time to launching kernels one by one, which
a graph does at once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from autometa.backbones.engines.half import Capture, capture_cuda
from autometa.core.chunks import free_memory

Tensors = tuple[torch.Tensor, ...]
Gradients = tuple[torch.Tensor | None, ...]
Losses = Callable[[Tensors], torch.Tensor]
"""Tensors of some tasks, along their first axis → the loss of each."""
SEEN = 2
"""How often chunks of one form must come before a graph is made of them: it costs some steps."""
MOST_GRAPHS = 16
"""Forms of chunks; others run without a graph."""


@dataclass(frozen=True)
class _Graph:
    """What repeats the work, what it reads, the weight of each task's loss, and what it writes."""

    replay: Callable[[], None]
    inputs: Tensors
    weights: torch.Tensor
    result: tuple[torch.Tensor, Gradients]


class CapturedTasks:
    """Graphs by the form of the chunks, over the parameters of a learner that are trained. They share their working
    memory, since one runs at a time and its result is taken before the next one runs."""

    def __init__(self, learner: Any, capture: Capture[tuple[torch.Tensor, Gradients]] | None = None) -> None:
        self._learner = learner
        self._trained = [p for p in learner.parameters() if p.requires_grad]
        self._capture = capture or partial(capture_cuda, pool=torch.cuda.graph_pool_handle())
        self._graphs: dict[Hashable, _Graph] = {}
        self._seen: Counter[Hashable] = Counter()
        self.broken = ""
        """Why no graph can be made here, or nothing."""

    def is_ready(self, losses: Losses, tensors: Tensors, chunk: int, ways: int) -> bool:
        """Whether chunks of this form, whose losses so are computed, have a graph, which is made where it is due."""
        form = self._form(tensors, chunk, ways)
        self._seen[form] += 1
        due = self._seen[form] >= SEEN and len(self._graphs) < MOST_GRAPHS and not self.broken
        if form not in self._graphs and due:
            try:
                self._graphs[form] = self._build(losses, tensors, chunk)
            except RuntimeError as error:  # an operation that no graph can hold, or too little memory
                self.broken = str(error).partition("\n")[0] or type(error).__name__
                logging.getLogger(__name__).info("tasks run without CUDA graphs: %s", self.broken)
            if self.broken:  # no longer in the handler, whose traceback holds what the capture had made
                self._graphs.clear()
                free_memory()
        return form in self._graphs and not self.broken

    def accumulate(self, tensors: Tensors, chunk: int, ways: int) -> float:
        """Add the gradients of the mean loss of all tasks of `tensors`, in chunks that are ready; the loss."""
        graph = self._graphs[self._form(tensors, chunk, ways)]
        tasks, total = len(tensors[0]), torch.zeros_like(graph.result[0])
        for start in range(0, tasks, chunk):
            places = torch.arange(start, start + chunk, device=tensors[0].device)
            for place, tensor in zip(graph.inputs, tensors, strict=True):
                place.copy_(tensor[places % tasks])  # the last chunk is filled up with tasks of no weight
            graph.weights.copy_((places < tasks) / tasks)
            graph.replay()
            total += graph.result[0]
            self._add(graph.result[1])
        return float(total)

    def _form(self, tensors: Tensors, chunk: int, ways: int) -> Hashable:
        """What a graph is good for: these sizes, and parameters at these addresses."""
        learner = self._learner
        addresses = tuple(t.data_ptr() for t in (*learner.parameters(), *learner.buffers()))
        shapes = tuple((tensor.shape[1:], tensor.dtype) for tensor in tensors)
        return chunk, ways, shapes, learner.training, addresses

    def _build(self, losses: Losses, tensors: Tensors, chunk: int) -> _Graph:
        places = torch.arange(chunk, device=tensors[0].device) % len(tensors[0])
        inputs = tuple(tensor[places] for tensor in tensors)
        weights = torch.full((chunk,), 1 / chunk, device=tensors[0].device)

        def work() -> tuple[torch.Tensor, Gradients]:
            loss = (losses(inputs) * weights).sum()
            return loss.detach(), torch.autograd.grad(loss, self._trained, allow_unused=True)

        replay, result = self._capture(work)
        return _Graph(replay, inputs, weights, result)

    def _add(self, gradients: Gradients) -> None:
        for parameter, gradient in zip(self._trained, gradients, strict=True):
            if gradient is not None:  # a copy: the next run overwrites it
                parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad.add_(gradient)
