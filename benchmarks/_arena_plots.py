"""Plots of the arena: accuracy against the budget for every dataset, and the average rank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from _arena_results import Result, Round, average_ranks, estimate, rounds
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Curve = list[tuple[float, float, float]]
"""Points: budget in seconds, value, half-width of its interval."""


def write_plots(results: Sequence[Result], folder: Path, ours: str) -> list[Path]:
    """`accuracy_{dataset}.png` for every dataset, of a run across domains for each that it was tested on, and
    `rank.png`; the curve of `ours` is drawn thicker. A plot has only what all of its points have in common."""
    folder.mkdir(parents=True, exist_ok=True)
    of_budgets = rounds(results)
    names = sorted({name for of in of_budgets for name in of.bundles})
    files = []
    for dataset, (seeds, curves) in accuracy_curves(of_budgets).items():
        files.append(folder / f"accuracy_{dataset}.png")
        title = f"{dataset}: normalised accuracy, %, seeds {', '.join(map(str, seeds))}"
        draw(curves, names, ours, title).savefig(files[-1])
    pairs, curves = rank_curves(of_budgets)
    if pairs and curves:
        files.append(folder / "rank.png")
        title = f"average rank over the same {pairs} pairs of dataset and seed, 1 is best"
        draw(curves, names, ours, title, downwards=True).savefig(files[-1])
    return files


def accuracy_curves(of_budgets: Sequence[Round]) -> dict[str, tuple[list[int], dict[str, Curve]]]:
    """The seeds that all points of a dataset have in common, and with these alone the curve of every bundle. Datasets
    without such a seed are left out, with a line that says so."""
    by_set = [
        part
        for of in of_budgets
        for cell in of.cells.values()
        for run in cell.values()
        for part in run.by_set()
    ]
    points: dict[str, dict[tuple[str, float], list[Result]]] = {}
    for run in by_set:
        points.setdefault(run.dataset, {}).setdefault((run.bundle, run.budget_s), []).append(run)
    found = {}
    for dataset, of_points in sorted(points.items()):
        seeds = set.intersection(*({run.seed for run in runs} for runs in of_points.values()))
        if not seeds:
            print(f"{dataset}: no seed is common to all bundles and budgets, so there is no plot of it")
            continue
        curves: dict[str, Curve] = {}
        for (name, budget_s), runs in sorted(of_points.items()):
            own = estimate([run for run in runs if run.seed in seeds])
            curves.setdefault(name, []).append((budget_s, own.mean, own.ci95))
        found[dataset] = sorted(seeds), curves
    return found


def rank_curves(of_budgets: Sequence[Round]) -> tuple[int, dict[str, Curve]]:
    """The average rank of the bundles that ran with every budget, over the pairs of dataset and seed that all of them
    have with every budget, and how many pairs these are."""
    bundles = set.intersection(*(set(of.bundles) for of in of_budgets))
    has_all = [{key for key, cell in of.cells.items() if bundles <= cell.keys()} for of in of_budgets]
    keys = set.intersection(*has_all)
    curves: dict[str, Curve] = {}
    for of in of_budgets:
        cells = {key: {name: of.cells[key][name] for name in bundles} for key in keys}
        for name, value in average_ranks(Round(of.budget_s, cells)).items():
            curves.setdefault(name, []).append((of.budget_s, value, 0.0))
    return len(keys), curves


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
