"""The inner loop: parameters of one task moved down the gradient of its support loss, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch.func import grad_and_value

Params = dict[str, torch.Tensor]
Loss = Callable[[Params, int], torch.Tensor]
"""Support loss of parameters in an inner step."""
Update = Callable[[Params, int], Params]
"""What is subtracted from the parameters of these gradients in an inner step."""


def adapt_params(
    loss: Loss,
    params: Params,
    moving: Collection[str],
    update: Update,
    steps: int,
) -> list[Params]:
    """Parameters before and after each of `steps` steps θ ← θ - update(∇L(θ)) (Finn et al. 2017): steps + 1 sets.

    Only those named in `moving` change. `update` scales their gradients by a rate; it may clip them or detach them,
    else gradients flow through the steps.
    """
    path = [params]
    for step in range(steps):
        current = path[-1]

        def moved_loss(part: Params, step: int = step, current: Params = current) -> torch.Tensor:
            return loss({**current, **part}, step)

        gradients, _ = grad_and_value(moved_loss)({name: current[name] for name in moving})
        moved = {name: current[name] - change for name, change in update(gradients, step).items()}
        path.append({**current, **moved})
    return path


def clip_gradients(gradients: Mapping[str, torch.Tensor], most: float) -> Params:
    """Gradients scaled so that their joint length is at most `most`."""
    squares = [gradient.square().sum() for gradient in gradients.values()]
    length = torch.stack(squares).sum().clamp(min=1e-20).sqrt()
    scale = (most / length).clamp(max=1.0)
    return {name: gradient * scale for name, gradient in gradients.items()}
