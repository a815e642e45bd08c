"""Tasks on all cores of a CPU, each on one: small convolutions gain less from two threads than two tasks do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import nn

from autometa.backbones import copy_sharing_tensors
from autometa.core.machine import one_thread

Result = TypeVar("Result")
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def map_on_cores(learner: AnyModule, work: Callable[[AnyModule, int], Result], n: int) -> Iterator[Result]:
    """`work` on copies of `learner` for each of 0..n-1, in order; as many at a time as torch has threads.
    Each result is released once it is taken.

    The copies share all tensors with `learner`. What `work` changes besides is lost, and gradients that it
    adds to shared parameters race: it has to return them.
    """
    workers = min(torch.get_num_threads(), n)
    if workers < 2:
        yield from (work(learner, place) for place in range(n))
        return
    copies: SimpleQueue[AnyModule] = SimpleQueue()
    for _ in range(workers):
        copies.put(copy_sharing_tensors(learner))
    gradients = torch.is_grad_enabled()

    def one(place: int) -> Result:
        own = copies.get()
        try:
            with torch.set_grad_enabled(gradients):  # which threads do not inherit
                return work(own, place)
        finally:
            copies.put(own)

    with one_thread(), ThreadPoolExecutor(workers) as pool:
        yield from pool.map(one, range(n))
