"""Meta-gradients of MAML, first-order MAML and Reptile, against what is written out plainly; float64."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gradient_cases import (
    built,
    close,
    double,
    gradients_of,
    only_task,
    plain_conv4,
    plain_logits,
    plain_start,
    unrolled,
)
from learner_cases import image_episode

from autometa.learners.episodes import InputEpisodes, stack_episodes
from autometa.learners.gradient.base import BODY, GradientLearner
from autometa.learners.gradient.inner_loop import Params
from autometa.learners.gradient.tasks import Task

RATE = 0.1
SECOND_ORDER = ["maml", "anil", "boil", "meta_sgd", "maml_plus_plus", "proto_maml", "cavia", "cavia_class"]
__all__ = ["double"]
pytestmark = pytest.mark.usefixtures("double")
every_length = pytest.mark.parametrize("steps", [1, 2, 3])


def exact(name: str, **options: Any) -> GradientLearner:
    return built(name, **{"rate": RATE, "clip": None, **options})


def support_loss(params: Params, task: Task) -> torch.Tensor:
    return F.cross_entropy(plain_logits(params, task.support), task.support_labels)


def query_loss(params: Params, task: Task) -> torch.Tensor:
    return F.cross_entropy(plain_logits(params, task.query), task.query_labels)


def grads(loss: torch.Tensor, params: Params) -> Params:
    return dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))


@pytest.mark.parametrize("negative", [False, True])
def test_logits_are_those_of_the_plain_network(negative: bool) -> None:
    learner, task = exact("maml"), only_task(4)
    if negative:  # maxima of normalised numbers are no longer normalised maxima
        with torch.no_grad():
            for name, parameter in learner.named_parameters():
                if parameter.ndim == 1 and name.startswith(BODY):
                    parameter.copy_(torch.randn(len(parameter)))
    params = plain_start(learner, 4)
    ours = learner.logits(params, task.query, 0, recording=False)
    torch.testing.assert_close(ours, plain_logits(params, task.query))
    slopes = [grads(logits.square().sum(), params) for logits in (ours, plain_logits(params, task.query))]
    assert close(slopes[0], slopes[1], 1e-6)


@every_length
def test_maml_equals_autograd_through_an_unrolled_loop(steps: int) -> None:
    learner, episodes = exact("maml", steps=steps), [image_episode(3, 2, 2), image_episode(4, 1, 3, seed=5)]
    losses = []
    for alone in episodes:
        task = Task.of(alone, 0)
        start = plain_start(learner, task.ways)
        moved = unrolled(partial(support_loss, task=task), start, RATE, steps)
        losses.append(query_loss(moved, task))
    expected = grads(torch.stack(losses).mean(), dict(learner.named_parameters()))
    assert close(gradients_of(learner, stack_episodes(episodes)), expected, 1e-6)


@every_length
def test_fomaml_is_the_gradient_at_the_adapted_parameters(steps: int) -> None:
    learner, episodes = exact("fomaml", steps=steps), image_episode(3, 2, 2)
    task = Task.of(episodes, 0)
    start = {name: p.detach().requires_grad_() for name, p in plain_start(learner, 3).items()}
    moved = unrolled(lambda p: support_loss(p, task), start, RATE, steps, constant=True)
    there = {name: p.detach().requires_grad_() for name, p in moved.items()}
    expected = grads(query_loss(there, task), there)
    expected.pop("head.bias")
    expected["start_weight"] = expected.pop("head.weight").sum(0)
    found = gradients_of(learner, episodes)
    assert close(found, expected, 1e-6)
    assert not close(found, gradients_of(exact("maml", steps=steps), episodes), 1e-2)


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_gradients_are_the_slope_of_the_loss(name: str) -> None:
    options: dict[str, Any] = {}
    if name == "maml_plus_plus":
        options = {"norm": "transductive", "first_order_share": 0.0, "adapt_norm": True}
    learner, episodes, h = exact(name, steps=2, **options), image_episode(3, 2, 2), 1e-6
    if name == "maml_plus_plus":
        learner.share_done = 1.0  # only the last step counts
    gradients = gradients_of(learner, episodes)
    parameters = dict(learner.named_parameters())
    assert gradients.keys() == parameters.keys()
    generator = torch.Generator().manual_seed(0)
    noise = {n: torch.randn(g.shape, generator=generator) * g.abs().mean() for n, g in gradients.items()}
    way = {n: g + noise[n] for n, g in gradients.items()}
    length = float(torch.stack([w.square().sum() for w in way.values()]).sum().sqrt())
    losses = []
    for sign in (1, -2):
        with torch.no_grad():
            for n, parameter in parameters.items():
                parameter.add_(sign * h / length * way[n])
        losses.append(learner.accumulate(episodes))
    slope = (losses[0] - losses[1]) / (2 * h)
    assert slope == pytest.approx(sum(float((g * way[n]).sum()) for n, g in gradients.items()) / length, 1e-4)


def test_inner_steps_are_no_longer_than_the_clip() -> None:
    learner, task = built("maml", steps=3, rate=1.0, clip=0.01), only_task()
    path = [{n: p.detach() for n, p in params.items()} for params in learner.train().adapt(task, 3)]
    for before, after in itertools.pairwise(path):
        moved = torch.cat([(after[n] - before[n]).flatten() for n in after]).norm()
        assert float(moved) == pytest.approx(0.01, rel=1e-6)


def images_and_labels(episodes: InputEpisodes) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.cat([episodes.support[0], episodes.query[0]]),
        torch.cat([episodes.support_labels[0], episodes.query_labels[0]]),
    )


def by_adam(learner: GradientLearner, episodes: InputEpisodes, steps: int) -> tuple[Params, Params]:
    """The start, and how far Adam without momentum moves the parameters on all images of the task."""
    images, labels = images_and_labels(episodes)
    start = {name: p.detach().clone() for name, p in plain_start(learner, int(episodes.ways)).items()}
    current = {name: p.clone().requires_grad_() for name, p in start.items()}
    adam = torch.optim.Adam(list(current.values()), lr=0.01, betas=(0.0, 0.999), eps=1e-6)
    for _ in range(steps):
        adam.zero_grad()
        F.cross_entropy(plain_logits(current, images), labels).backward()
        adam.step()
    moved = {name: (start[name] - p).detach() for name, p in current.items()}
    moved.pop("head.bias")
    moved["start_weight"] = moved.pop("head.weight").mean(0)
    return start, moved


@every_length
def test_reptile_goes_where_adam_without_momentum_goes(steps: int) -> None:
    learner, episodes = exact("reptile", rate=0.01, steps=steps, batch=12), image_episode(3, 2, 2)
    _, moved = by_adam(learner, episodes, steps)
    assert close(gradients_of(learner, episodes), moved, 1e-5)


def test_one_step_of_reptile_is_joint_training() -> None:
    learner, episodes = (
        exact("reptile", head="prototypes", rate=0.01, steps=1, batch=12),
        image_episode(3, 2, 2),
    )
    task, (images, labels) = Task.of(episodes, 0), images_and_labels(episodes)
    body: dict[str, torch.Tensor] = dict(learner.named_parameters())
    means = torch.stack([plain_conv4(body, task.support)[task.support_labels == c].mean(0) for c in range(3)])
    head = {"head.weight": 2 * means.detach(), "head.bias": -means.detach().square().sum(1)}
    plain = grads(F.cross_entropy(plain_logits({**body, **head}, images), labels), body)
    direction = gradients_of(learner, episodes)
    assert all(name.startswith(BODY) for name in direction)
    assert any(bool((g != 0).any()) for g in plain.values())
    assert close(direction, {n: 0.01 * g / (g.abs() + 1e-6) for n, g in plain.items()}, 1e-6)


def test_reptile_averages_over_tasks() -> None:
    learner = exact("reptile", rate=0.01, steps=1, batch=100)
    episodes = [image_episode(3, 2, 2), image_episode(4, 1, 3, seed=5)]
    alone = [gradients_of(learner, one) for one in episodes]
    expected = {name: (alone[0][name] + alone[1][name]) / 2 for name in alone[0]}
    assert close(gradients_of(learner, stack_episodes(episodes)), expected, 1e-5)


def test_mini_batches_of_reptile_have_the_images_they_should_have(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, sizes = exact("reptile", steps=6, batch=10), []
    logits = learner.logits

    def counted(params: Params, inputs: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        sizes.append(len(inputs))
        return logits(params, inputs, *given, **named)

    monkeypatch.setattr(learner, "logits", counted)
    for ways, queries in ((3, 6), (2, 2)):
        learner.train().accumulate(image_episode(ways, 1, queries))
    assert sizes == [10] * 6 + [6] * 6
