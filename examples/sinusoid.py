"""Learning to learn sinusoids: MAML against a network that was pretrained on all tasks.

    python examples/sinusoid.py [--quick] [--iterations N] [--output PNG] [--seed N]

The regression experiment of Finn et al. 2017, "Model-agnostic meta-learning for fast adaptation of deep
networks", section 5.1, on the inner loop of autometa's gradient-based learners. A task is y = a sin(x - φ) with an
amplitude a in [0.1, 5], a phase φ in [0, π] and K = 10 points with x in [-5, 5]; the network is an MLP
1-40-40-1. MAML learns an initialisation from which one gradient step fits a new sinusoid; the pretrained network
learns to fit all tasks at once, but their mean is far from each of them. Both are then fine-tuned on the same
points of the same new tasks; the pretrained network with the best of several rates, as in the paper.

Prints the mean squared errors after 0, 1, 5 and 10 gradient steps with 95% intervals, and draws two of the
tasks.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import itertools

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch.func import vmap

from autometa.learners.gradient.inner_loop import Params, adapt_params

SIZES = (1, 40, 40, 1)
POINTS, META_BATCH, TEST_TASKS = 10, 25, 200
INNER_RATE, OUTER_RATE = 0.01, 1e-3
PRETRAINED_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
CHECKED = (0, 1, 5, 10)
"""Numbers of gradient steps after which errors are measured."""
DRAWN = (0, 1, 10)
DEFAULT, QUICK = 15000, 5000
GRID = torch.linspace(-5, 5, 200)[:, None]
Curves = tuple[str, list[torch.Tensor]]
"""A name, and a network's answers [tasks, points, 1] on the grid after every number of steps."""


@dataclass(frozen=True)
class Sinusoids:
    """Tasks, by amplitudes and phases [t, 1, 1], and the `x`, `y` [t, POINTS, 1] that are known of each."""

    amplitude: torch.Tensor
    phase: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor

    @classmethod
    def drawn(cls, n: int, points: int, generator: torch.Generator) -> Sinusoids:
        """Random tasks."""
        amplitude = 0.1 + 4.9 * torch.rand(n, 1, 1, generator=generator)
        phase = math.pi * torch.rand(n, 1, 1, generator=generator)
        x = 10 * torch.rand(n, points, 1, generator=generator) - 5
        return cls(amplitude, phase, x, amplitude * torch.sin(x - phase))

    def on_grid(self) -> torch.Tensor:
        """True values [t, points, 1] on the grid."""
        return self.amplitude * torch.sin(GRID[None] - self.phase)


def initial(generator: torch.Generator) -> Params:
    """Parameters of the MLP, uniform within 1/√inputs as in PyTorch."""
    params = {}
    for layer, (m, n) in enumerate(itertools.pairwise(SIZES)):
        params[f"{layer}.weight"] = (2 * torch.rand(n, m, generator=generator) - 1) / m**0.5
        params[f"{layer}.bias"] = (2 * torch.rand(n, generator=generator) - 1) / m**0.5
    return {name: tensor.requires_grad_() for name, tensor in params.items()}


def network(params: Params, x: torch.Tensor) -> torch.Tensor:
    """x [n, 1] → y [n, 1]."""
    layers = len(SIZES) - 1
    for layer in range(layers):
        x = F.linear(x, params[f"{layer}.weight"], params[f"{layer}.bias"])
        x = F.relu(x) if layer < layers - 1 else x
    return x


def fine_tuned(params: Params, x: torch.Tensor, y: torch.Tensor, steps: int, rate: float) -> list[Params]:
    """Parameters before and after every gradient step on the points [n, 1] of one task."""
    return adapt_params(
        lambda p, _: F.mse_loss(network(p, x), y),
        params,
        list(params),
        lambda gradients, _: {name: rate * gradient for name, gradient in gradients.items()},
        steps,
    )


def maml_loss(params: Params, tasks: Sinusoids) -> torch.Tensor:
    """Mean error on the second half of each task's points after one step on the first half."""

    def of_task(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        moved = fine_tuned(params, x[:POINTS], y[:POINTS], 1, INNER_RATE)[-1]
        return F.mse_loss(network(moved, x[POINTS:]), y[POINTS:])

    return vmap(of_task)(tasks.x, tasks.y).mean()


def joint_loss(params: Params, tasks: Sinusoids) -> torch.Tensor:
    """Mean error on all points of all tasks, none of which is known to the network."""
    return F.mse_loss(network(params, tasks.x.flatten(0, 1)), tasks.y.flatten(0, 1))


def trained(loss: Callable[[Params, Sinusoids], torch.Tensor], iterations: int, seed: int) -> Params:
    """Parameters after `iterations` of Adam on fresh tasks, with a rate that falls along a cosine."""
    generator = torch.Generator().manual_seed(seed)
    params = initial(generator)
    optimizer = torch.optim.Adam(params.values(), lr=OUTER_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for _ in range(iterations):
        optimizer.zero_grad()
        loss(params, Sinusoids.drawn(META_BATCH, 2 * POINTS, generator)).backward()
        optimizer.step()
        schedule.step()
    return {name: tensor.detach() for name, tensor in params.items()}


def curves(params: Params, tasks: Sinusoids, rate: float) -> list[torch.Tensor]:
    """Answers [t, points, 1] on the grid after 0, 1, … gradient steps on the points of each task."""

    def of_task(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        return [network(moved, GRID) for moved in fine_tuned(params, x, y, max(CHECKED), rate)]

    return vmap(of_task)(tasks.x, tasks.y)


def errors(answers: torch.Tensor, tasks: Sinusoids) -> torch.Tensor:
    """Mean squared error [t] of each task."""
    return (answers - tasks.on_grid()).square().mean((1, 2))


def best_rate(params: Params, tasks: Sinusoids) -> float:
    """The rate with the least error after 5 steps."""
    return min(
        PRETRAINED_RATES,
        key=lambda rate: errors(curves(params, tasks, rate)[5], tasks).nan_to_num(1e9).mean(),
    )


def compared(iterations: int, seed: int, test_tasks: int = TEST_TASKS) -> tuple[Sinusoids, list[Curves]]:
    """Train both networks; new tasks and the curves of both on them."""
    maml, pretrained = trained(maml_loss, iterations, seed), trained(joint_loss, iterations, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    rate = best_rate(pretrained, Sinusoids.drawn(100, POINTS, generator))
    tasks = Sinusoids.drawn(test_tasks, POINTS, generator)
    names = (f"MAML (rate {INNER_RATE:g})", f"Pretrained (rate {rate:g})")
    return tasks, [
        (names[0], curves(maml, tasks, INNER_RATE)),
        (names[1], curves(pretrained, tasks, rate)),
    ]


def show_errors(tasks: Sinusoids, both: list[Curves]) -> None:
    """Print a table."""
    print(f"{'MSE after steps':24}" + "".join(f"{steps:>16}" for steps in CHECKED))
    for name, path in both:
        cells = []
        for steps in CHECKED:
            mse = errors(path[steps], tasks)
            cells.append(f"{mse.mean():.2f} ± {1.96 * mse.std() / len(mse) ** 0.5:.2f}")
        print(f"{name:24}" + "".join(f"{cell:>16}" for cell in cells))


def draw(tasks: Sinusoids, both: list[Curves], output: Path) -> None:
    """Two tasks, one of a large and one of a middling amplitude, in two rows, one column per network."""
    amplitudes = tasks.amplitude.flatten()
    shown = [int((amplitudes - wanted).abs().argmin()) for wanted in (4.5, 2.0)]
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), sharex=True, sharey="row", layout="constrained")
    for row, task in enumerate(shown):
        for column, (name, path) in enumerate(both):
            axis = axes[row][column]
            draw_task(axis, tasks, task, path)
            mse = " → ".join(f"{float(errors(path[steps], tasks)[task]):.2f}" for steps in DRAWN)
            axis.set_title(f"{name}: MSE {mse}", fontsize=11)
        formula = f"{amplitudes[task]:.1f} sin(x − {float(tasks.phase[task]):.1f})"
        axes[row][0].set_ylabel(f"y = {formula}")
    for axis in axes[-1]:
        axis.set_xlabel("x")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle("Ten points of a new sinusoid: after a few gradient steps", fontsize=14)
    figure.savefig(output, dpi=130)
    plt.close(figure)


def draw_task(axis: Axes, tasks: Sinusoids, task: int, path: list[torch.Tensor]) -> None:
    """Truth, points, and a network before and after 1 and 10 steps."""
    x = GRID[:, 0]
    axis.plot(x, tasks.on_grid()[task, :, 0], color="#333333", lw=2, label="truth")
    axis.plot(x, path[0][task, :, 0], color="#999999", lw=1.5, ls=":", label="before")
    axis.plot(x, path[1][task, :, 0], color="#e08214", lw=1.8, ls="--", label="after 1 step")
    axis.plot(x, path[10][task, :, 0], color="#2166ac", lw=2.2, label="after 10 steps")
    axis.scatter(
        tasks.x[task], tasks.y[task], color="#b2182b", marker="^", s=42, zorder=5, label="the 10 points"
    )
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Train, print, draw."""
    parser = argparse.ArgumentParser(description="MAML and a pretrained network on sinusoids.")
    parser.add_argument("--iterations", type=int, default=DEFAULT, help="meta-batches (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} iterations, under a minute")
    parser.add_argument("--output", type=Path, default=Path("sinusoid.png"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)  # more threads do not help with tasks this small
    start = time.perf_counter()
    tasks, both = compared(QUICK if given.quick else given.iterations, given.seed)
    show_errors(tasks, both)
    draw(tasks, both, given.output)
    print(f"{given.output} written; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
