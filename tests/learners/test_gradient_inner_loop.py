"""The inner loop on small functions: gradients through it, over tasks at once, and as constants."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from gradient_cases import close, unrolled
from torch.func import vmap

from autometa.learners.gradient.inner_loop import Params, adapt_params, clip_gradients

RATE = 0.3


def descend(gradients: Params, _: int) -> Params:
    return {name: RATE * gradient for name, gradient in gradients.items()}


every_length = pytest.mark.parametrize("steps", [1, 2, 3])


def mlp(seed: int = 0) -> Params:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (4, 2), "b": (4,), "c": (3, 4), "d": (3,)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for name, shape in shapes.items()
    }


def task(seed: int, n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (n,), generator=generator)


def nll(params: Params, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    hidden = torch.tanh(F.linear(x, params["a"], params["b"]))
    return F.cross_entropy(F.linear(hidden, params["c"], params["d"]), y)


def after(params: Params, x: torch.Tensor, y: torch.Tensor, steps: int) -> torch.Tensor:
    """Loss on the second half of the data after adaptation on the first."""
    half = len(x) // 2
    (x, query), (y, asked) = x.split(half), y.split(half)
    path = adapt_params(lambda p, _: nll(p, x, y), params, list(params), descend, steps)
    return nll(path[-1], query, asked)


def gradient(loss: torch.Tensor, params: Params) -> Params:
    return dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))


@every_length
def test_gradients_equal_autograd_through_an_unrolled_loop(steps: int) -> None:
    params, (x, y) = mlp(), task(1)
    by_hand = nll(unrolled(lambda p: nll(p, x[:6], y[:6]), params, RATE, steps), x[6:], y[6:])
    assert close(gradient(after(params, x, y, steps), params), gradient(by_hand, params), 1e-6)


@every_length
def test_gradients_equal_central_differences_in_every_coordinate(steps: int) -> None:
    params, (x, y), h = mlp(), task(1), 1e-5
    slopes = {name: torch.zeros_like(p) for name, p in params.items()}
    for name, slope in slopes.items():
        for place in range(slope.numel()):
            shift = torch.zeros(slope.numel(), dtype=torch.float64)
            shift[place] = h
            up, down = (
                after({**params, name: params[name] + sign * shift.view_as(slope)}, x, y, steps)
                for sign in (1, -1)
            )
            slope.view(-1)[place] = (up - down).detach() / (2 * h)
    assert close(gradient(after(params, x, y, steps), params), slopes, 1e-4)


@every_length
def test_tasks_at_once_equal_one_after_the_other(steps: int) -> None:
    params, tasks = mlp(), [task(seed) for seed in range(5)]
    x, y = (torch.stack(part) for part in zip(*tasks, strict=True))
    at_once = vmap(lambda x, y: after(params, x, y, steps))(x, y)
    alone = torch.stack([after(params, *one, steps) for one in tasks])
    torch.testing.assert_close(at_once, alone)
    assert close(gradient(at_once.sum(), params), gradient(alone.sum(), params), 1e-10)


def test_there_is_one_more_set_of_parameters_than_steps_and_the_first_is_the_start() -> None:
    params, (x, y) = mlp(), task(1)
    path = adapt_params(lambda p, _: nll(p, x, y), params, list(params), descend, 3)
    assert len(path) == 4 and path[0] is params
    losses = [nll(p, x, y).item() for p in path]
    assert losses == sorted(losses, reverse=True)


def test_only_the_named_parameters_move_each_at_its_rate_of_the_step() -> None:
    start = {name: torch.tensor(1.0, dtype=torch.float64) for name in ("slow", "fast", "still")}
    rates = {"slow": 0.1, "fast": 0.2}

    def update(gradients: Params, step: int) -> Params:
        return {name: rates[name] * (step + 1) * gradient for name, gradient in gradients.items()}

    path = adapt_params(lambda p, _: torch.stack(list(p.values())).sum(0), start, list(rates), update, 2)
    assert {name: float(p) for name, p in path[-1].items()} == pytest.approx(
        {"slow": 0.7, "fast": 0.4, "still": 1.0}
    )


def test_the_loss_is_told_the_step() -> None:
    seen: list[int] = []

    def loss(params: Params, step: int) -> torch.Tensor:
        seen.append(step)
        return params["a"].sum()

    adapt_params(loss, {"a": torch.ones(1)}, ["a"], descend, 3)
    assert seen == [0, 1, 2]


def both_orders(power: int) -> tuple[float, float]:
    """d/dθ of 3θ'² after one step on Σθ^power, with and without the gradient's own gradient, at θ = 2."""
    slopes = []
    for update in (lambda g, _: {"a": 0.1 * g["a"]}, lambda g, _: {"a": 0.1 * g["a"].detach()}):
        start = {"a": torch.tensor(2.0, requires_grad=True)}
        path = adapt_params(lambda p, _: p["a"] ** power, start, ["a"], update, 1)
        slopes.append(float(torch.autograd.grad(3 * path[-1]["a"] ** 2, start["a"])[0]))
    return slopes[0], slopes[1]


def test_first_order_differs_on_a_curved_loss() -> None:
    assert both_orders(2) == pytest.approx((6 * 1.6 * 0.8, 6 * 1.6))


def test_first_order_is_exact_on_a_linear_loss() -> None:
    assert both_orders(1) == pytest.approx((6 * 1.9, 6 * 1.9))


def test_clipping_keeps_the_direction_and_leaves_short_gradients_alone() -> None:
    long = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor(4.0)}
    cut = clip_gradients(long, 2.0)
    torch.testing.assert_close(cut["a"], torch.tensor([1.2, 0.0]))
    torch.testing.assert_close(cut["b"], torch.tensor(1.6))
    for name, value in clip_gradients(long, 6.0).items():
        assert torch.equal(value, long[name])


def test_clipping_nothing_has_no_bad_gradient() -> None:
    zero = torch.zeros(2, requires_grad=True)
    clip_gradients({"a": zero}, 1.0)["a"].sum().backward()
    assert zero.grad is not None and zero.grad.isfinite().all()
