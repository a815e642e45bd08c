"""CAVIA with one context for a task: where FiLM is, what the head is, and its steps written out plainly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gradient_cases import SMALLEST, built, close, double, gradients_of, only_task
from learner_cases import image_episode

from autometa.core.errors import ConfigError, DataError
from autometa.learners.encoder import Encoder, EncoderSpec
from autometa.learners.gradient.base import BODY
from autometa.learners.gradient.cavia import CAVIA, CONTEXT, CAVIAOptions, FiLM
from autometa.learners.gradient.inner_loop import Params
from autometa.learners.gradient.tasks import Task

__all__ = ["double"]
RESNET = EncoderSpec(network="resnet12", px=16, channels=4)
FIXED: dict[str, Any] = {"head": "learned", "ways": 3}


def film(encoder: EncoderSpec = SMALLEST, **options: Any) -> CAVIA:
    learner = built("cavia", encoder, context=5, tasks="loop", **options)
    assert isinstance(learner, CAVIA)
    return learner


def in_context(learner: CAVIA, context: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Embeddings in a context."""
    params = {**learner.initial(only_task()), CONTEXT: context}
    return learner.features(params, images, 0, recording=True)


def conv4_with_film(learner: CAVIA, context: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """A Conv-4 whose third block is scaled and shifted between its norm and its activation."""
    body = [p for name, p in learner.named_parameters() if name.startswith(BODY)]
    maps = images / 127.5 - 1
    for number, (conv, scale, shift) in enumerate(zip(body[::3], body[1::3], body[2::3], strict=True)):
        maps = F.batch_norm(F.conv2d(maps, conv, padding=1), None, None, scale, shift, training=True)
        if number == 2:
            gamma, beta = learner.film(context)
            maps = gamma[:, None, None] * maps + beta[:, None, None]
        maps = F.max_pool2d(F.relu(maps), 2)
    return maps.flatten(1)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("size", [0.0, 1.0, 6.0])
def test_a_context_scales_and_shifts_the_third_block(size: float) -> None:
    learner, task = film(), only_task(4)
    context = size * torch.randn(5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = in_context(learner, context, task.support)
        torch.testing.assert_close(found, conv4_with_film(learner, context, task.support))
        assert size == 0 or not torch.allclose(found, in_context(learner, 0 * context, task.support))


@pytest.mark.usefixtures("double")
def test_in_a_residual_block_it_is_the_sum_before_the_activation() -> None:
    learner, images = film(encoder=RESNET), only_task(3).support
    context = torch.randn(5, generator=torch.Generator().manual_seed(1))
    encoder: Any = learner.encoder
    with torch.no_grad():
        found = in_context(learner, context, images)
        maps = encoder.network[1](encoder.network[0](encoder.normalise(images)))
        block, (gamma, beta) = encoder.network[2], learner.film(context)
        maps = gamma[:, None, None] * (block.body(maps) + block.shortcut(maps)) + beta[:, None, None]
        maps = F.leaky_relu(F.max_pool2d(maps, 2), 0.1)
        torch.testing.assert_close(found, encoder.network[3](maps).mean((2, 3)))


class Flat(Encoder):
    """Stands for a pretrained network with an adapter: a linear map of inputs [n, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = (4, 1, 1)
        self.adapter = torch.nn.Linear(6, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.adapter(inputs)[..., None, None]


def test_of_a_pretrained_network_it_is_the_embedding() -> None:
    torch.manual_seed(0)
    learner = CAVIA(Flat(), CAVIAOptions(context=5))
    inputs, labels = torch.randn(6, 6), torch.arange(3).repeat(2)
    task, context = Task(inputs, labels, inputs, labels, 3), torch.randn(5)
    plain, (gamma, beta) = learner.encoder.vectors(inputs), learner.film(context)
    found = learner.features({**learner.initial(task), CONTEXT: context}, inputs, 0, recording=True)
    torch.testing.assert_close(found, gamma * plain + beta)
    path = learner.adapt(task, 3)
    losses = [learner.support_loss(params, 0, task=task).item() for params in path]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]


def test_without_a_context_nothing_is_scaled_or_shifted() -> None:
    gamma, beta = FiLM(5, 3)(torch.zeros(5))
    assert gamma.tolist() == [1, 1, 1] and beta.tolist() == [0, 0, 0]
    start = film().initial(only_task(4))[CONTEXT]
    assert start.shape == (5,) and not start.any()


def by_prototypes(support: torch.Tensor, labels: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Logits [q, ways] by the squared distance to the class means."""
    means = torch.stack([support[labels == c].mean(0) for c in range(int(labels.max()) + 1)])
    return -(asked[:, None] - means[None]).square().sum(-1)


def unrolled_loss(learner: CAVIA, task: Task, steps: int) -> torch.Tensor:
    """The query loss after steps in the context alone, with graph; prototypes are made anew in each."""
    context: torch.Tensor = torch.zeros(5, requires_grad=True)
    for _ in range(steps):
        support = conv4_with_film(learner, context, task.support)
        loss = F.cross_entropy(by_prototypes(support, task.support_labels, support), task.support_labels)
        (slope,) = torch.autograd.grad(loss, context, create_graph=True)
        context = context - learner.options.rate * slope
    support, query = (conv4_with_film(learner, context, images) for images in (task.support, task.query))
    return F.cross_entropy(by_prototypes(support, task.support_labels, query), task.query_labels)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("steps", [1, 2])
def test_gradients_are_those_of_an_unrolled_loop(steps: int) -> None:
    learner, episodes = film(steps=steps, rate=0.1, clip=None), image_episode(3, 2, 2)
    params: Params = dict(learner.named_parameters())
    slopes = torch.autograd.grad(unrolled_loss(learner, Task.of(episodes, 0), steps), list(params.values()))
    assert close(gradients_of(learner, episodes), dict(zip(params, slopes, strict=True)), 1e-6)


@pytest.mark.parametrize("options", [{}, FIXED])
def test_only_the_context_moves(options: dict[str, Any]) -> None:
    path = film(**options).adapt(only_task(3), 2)
    assert {n for n in path[0] if not torch.equal(path[0][n], path[-1][n])} == {CONTEXT}


def test_a_learned_head_is_for_its_number_of_ways() -> None:
    learner = film(**FIXED)
    start = learner.initial(only_task(3))
    assert torch.equal(start["head.weight"], learner.start_head.weight)
    assert gradients_of(learner, image_episode(3, 2, 2))["start_head.bias"].abs().max() > 0
    with pytest.raises(DataError, match="a task of 4 classes, but the head was made for ways: 3"):
        learner(image_episode(4, 2, 2))


@pytest.mark.parametrize(
    "options",
    [
        {"conditioning": "film", "head": "zero"},
        {"conditioning": "class"},
        {"conditioning": "class", "head": "prototypes"},
        {"conditioning": "class", **FIXED},
    ],
)
def test_a_head_goes_with_its_conditioning(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="film needs head: prototypes or learned, class needs head: zero"):
        built("cavia", **options)
