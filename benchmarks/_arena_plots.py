"""Plots of the arena: accuracy against the budget for every dataset, and the average rank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from _arena_results import Result, average_ranks, estimate, rounds
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Curve = list[tuple[float, float, float]]
"""Points: budget in seconds, value, half-width of its interval."""


def write_plots(results: Sequence[Result], folder: Path, ours: str) -> list[Path]:
    """`accuracy_{dataset}.png` for every dataset and `rank.png`; the curve of `ours` is drawn thicker."""
    folder.mkdir(parents=True, exist_ok=True)
    of_budgets = rounds(results)
    accuracy: dict[str, dict[str, Curve]] = {}
    rank: dict[str, Curve] = {}
    for of in of_budgets:
        for dataset in of.datasets:
            for name in of.bundles:
                if runs := [result for (result,) in of.of(name, dataset=dataset)]:
                    found = estimate(runs)
                    point = (of.budget_s, found.mean, found.ci95)
                    accuracy.setdefault(dataset, {}).setdefault(name, []).append(point)
        for name, value in average_ranks(of).items():
            rank.setdefault(name, []).append((of.budget_s, value, 0.0))
    names = sorted({name for of in of_budgets for name in of.bundles})
    files = []
    for dataset, curves in accuracy.items():
        files.append(folder / f"accuracy_{dataset}.png")
        figure = draw(curves, names, ours, f"{dataset}: normalised accuracy, %")
        figure.savefig(files[-1])
    if rank:
        files.append(folder / "rank.png")
        draw(rank, names, ours, "average rank, 1 is best", downwards=True).savefig(files[-1])
    return files


def draw(
    curves: dict[str, Curve], names: Sequence[str], ours: str, title: str, *, downwards: bool = False
) -> Figure:
    """One curve per bundle, whose colour depends on its place among `names`; `downwards`: 1 is at the top."""
    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, points in curves.items():
        x, y, width = zip(*points, strict=True)
        place = names.index(name)
        line = f"o{('-', '--', ':')[place // 10 % 3]}"
        thick = 2.5 if name == ours else 1.2
        colour = colormaps["tab10"](place % 10)
        axes.errorbar(x, y, width, fmt=line, label=name, linewidth=thick, color=colour, capsize=2)
    budgets = sorted({x for points in curves.values() for x, _, _ in points})
    axes.set_xscale("log")
    axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axes.minorticks_off()
    axes.set_xlabel("budget, s")
    axes.set_title(title, fontsize=10)
    if downwards:
        axes.invert_yaxis()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure
