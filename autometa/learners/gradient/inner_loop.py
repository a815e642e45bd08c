"""The inner loop: parameters of one task moved down the gradient of its support loss, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch.func import grad_and_value

Params = dict[str, torch.Tensor]
Loss = Callable[[Params, int], torch.Tensor]
"""Support loss of parameters in an inner step."""
Rate = Callable[[str, int], torch.Tensor | float]
"""Rate of a parameter, by name, in an inner step; a number or anything that broadcasts to it."""


def adapt_params(
    loss: Loss,
    params: Params,
    moving: Collection[str],
    rate: Rate,
    steps: int,
    finish: Callable[[Params], Params] = dict,
) -> list[Params]:
    """Parameters before and after each of `steps` steps θ ← θ - α∇L(θ) (Finn et al. 2017): steps + 1 sets.

    Only those named in `moving` change. What `finish` makes of the gradients of a step is used: it may clip
    them or count them as constants; else gradients flow through the steps.
    """
    path = [params]
    for step in range(steps):
        current = path[-1]

        def moved_loss(part: Params, step: int = step, current: Params = current) -> torch.Tensor:
            return loss({**current, **part}, step)

        gradients, _ = grad_and_value(moved_loss)({name: current[name] for name in moving})
        moved = {n: current[n] - rate(n, step) * gradient for n, gradient in finish(gradients).items()}
        path.append({**current, **moved})
    return path


def clip_gradients(gradients: Mapping[str, torch.Tensor], most: float) -> Params:
    """Gradients scaled so that their joint length is at most `most`."""
    squares = [gradient.square().sum() for gradient in gradients.values()]
    length = torch.stack(squares).sum().clamp(min=1e-20).sqrt()
    scale = (most / length).clamp(max=1.0)
    return {name: gradient * scale for name, gradient in gradients.items()}
