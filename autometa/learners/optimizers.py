"""PyTorch's optimizers, without its compiler: the first of them in a process imports it otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from autometa.core.deferred_compiler import deferred_compiler
from autometa.learners.training_settings import TrainingSettings


class _WithoutCompiler(torch.optim.Optimizer):
    """What asks for the compiler."""

    @deferred_compiler()
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    @deferred_compiler()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        return super().step(closure)

    @deferred_compiler()
    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)

    @deferred_compiler()
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict()

    @deferred_compiler()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)


class Adam(_WithoutCompiler, torch.optim.Adam):
    """Kingma & Ba 2015."""


class AdamW(_WithoutCompiler, torch.optim.AdamW):
    """Loshchilov & Hutter 2019."""


class SGD(_WithoutCompiler, torch.optim.SGD):
    """Gradient descent."""


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": Adam,
    "sgd": SGD,
}


def build_optimizer(groups: list[dict[str, Any]], settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimizer of these settings over groups of parameters, as PyTorch takes them."""
    more: dict[str, Any] = {}
    if settings.momentum:
        more = {"momentum": settings.momentum, "nesterov": settings.nesterov}
    return OPTIMIZERS[settings.optimizer](
        groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, **more
    )
