"""Tiny optimisation-based learners, and what they compute written out plainly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from learner_cases import PX, image_episode, unzeroed

from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.base import BODY, GradientLearner
from autometa.learners.gradient.inner_loop import Params
from autometa.learners.gradient.tasks import Task
from autometa.learners.recipe import LEARNERS, Recipe, build_learner

SMALLEST = EncoderSpec(network="conv4", px=PX, channels=4)
GRADIENT = [name for name, spec in LEARNERS.items() if spec.family == "gradient"]
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "cavia_class": ("cavia", {"conditioning": "class", "head": "zero"}),
    "maml_plus_plus_own_statistics": (
        "maml_plus_plus",
        {"norm": "per_step_transductive", "first_order_share": 0.0},
    ),
}
"""Learners with options that make others of them, under names of their own."""


@pytest.fixture
def double() -> Iterator[None]:
    """Float64, in which many inner steps do not make much of rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def built(name: str, encoder: EncoderSpec = SMALLEST, **options: Any) -> GradientLearner:
    """A learner, or a variant, in evaluation mode whose parameters are none of them all zero."""
    name, own = VARIANTS.get(name, (name, {}))
    learner = build_learner(Recipe(learner=name, encoder=encoder, options=own | options))
    assert isinstance(learner, GradientLearner)
    return unzeroed(learner).eval()


def only_task(ways: int = 3, shots: int = 2, queries: int = 2, seed: int = 0) -> Task:
    """The task of one episode."""
    return Task.of(image_episode(ways, shots, queries, seed), 0)


def gradients_of(learner: GradientLearner, episodes: InputEpisodes) -> Params:
    """What `accumulate` gives in training mode, by the names of the parameters."""
    learner.train().zero_grad()
    learner.accumulate(episodes)
    return {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def first_layer(learner: GradientLearner) -> str:
    """The name of the weights of the first convolution."""
    return next(name for name, p in learner.named_parameters() if name.startswith(BODY) and p.ndim == 4)


def plain_conv4(params: Params, images: torch.Tensor) -> torch.Tensor:
    """Embeddings of a Conv-4 with batch norm on the statistics of these images; every block has a filter, a
    scale and a shift, in this order."""
    body = [p for name, p in params.items() if name.startswith(BODY)]
    maps = images / 127.5 - 1
    for conv, scale, shift in zip(body[::3], body[1::3], body[2::3], strict=True):
        maps = F.conv2d(maps, conv, padding=1)
        maps = F.batch_norm(maps, None, None, scale, shift, training=True)
        maps = F.max_pool2d(F.relu(maps), 2)
    return maps.flatten(1)


def plain_logits(params: Params, images: torch.Tensor) -> torch.Tensor:
    """Class logits of `plain_conv4` and a linear head."""
    return F.linear(plain_conv4(params, images), params["head.weight"], params["head.bias"])


def plain_start(learner: GradientLearner, ways: int) -> Params:
    """The learned parameters, with the shared head for this many ways."""
    params: Params = {name: p for name, p in learner.named_parameters() if name.startswith(BODY)}
    head = learner.start_weight[None].repeat(ways, 1)
    return {**params, "head.weight": head, "head.bias": torch.zeros(ways, requires_grad=True)}


def unrolled(
    loss: Callable[[Params], torch.Tensor], params: Params, rate: float, steps: int, *, constant: bool = False
) -> Params:
    """Parameters after plain gradient descent, with graph; or with gradients as constants."""
    for _ in range(steps):
        gradients = torch.autograd.grad(loss(params), list(params.values()), create_graph=not constant)
        params = {n: p - rate * g for (n, p), g in zip(params.items(), gradients, strict=True)}
    return params


def close(a: Params, b: Params, relative: float) -> bool:
    """Whether both have the same names and every difference is small beside the whole."""
    length = torch.stack([x.square().sum() for x in b.values()]).sum().sqrt()
    worst = max(float((a[name] - b[name]).norm()) for name in b) if a.keys() == b.keys() else float("inf")
    return bool(length > 0) and worst <= relative * float(length)
