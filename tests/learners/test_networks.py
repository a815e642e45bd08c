"""Layers of the small networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autometa.learners.networks import PointwiseConv2d


def slopes(layer: nn.Module, maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Gradients, by the weights and by the maps, of a loss after one inner step on the weights."""
    loss = layer(maps).square().mean()
    steps = torch.autograd.grad(loss, list(layer.parameters()), create_graph=True)
    moved = [p - 0.1 * step for p, step in zip(layer.parameters(), steps, strict=True)]
    names = [name for name, _ in layer.named_parameters()]
    after = torch.func.functional_call(layer, dict(zip(names, moved, strict=True)), (maps,))
    return torch.autograd.grad(after.abs().sum(), [*layer.parameters(), maps])


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_a_pointwise_convolution_is_one_to_the_second_derivative(side: int, bias: bool) -> None:
    torch.manual_seed(0)
    maps = torch.randn(4, 6, side, side + 1, dtype=torch.float64, requires_grad=True)
    ours, theirs = PointwiseConv2d(6, 5, bias=bias).double(), nn.Conv2d(6, 5, 1, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(maps), theirs(maps))
    torch.testing.assert_close(slopes(ours, maps), slopes(theirs, maps))
