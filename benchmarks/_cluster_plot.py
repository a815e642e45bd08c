"""A plot of simulated clusters: how busy machines and the judge are, by the number of machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from _cluster_simulation import Simulated
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_clusters(file: Path, workers: Sequence[int], found: Sequence[Simulated], title: str) -> None:
    """Write a PNG with the busy shares of machines and of the judge, in percent."""
    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for label, shares in (
        ("machines", [each.utilisation for each in found]),
        ("the judge", [each.judge_load for each in found]),
    ):
        axes.plot(workers, [100 * share for share in shares], marker="o", label=label)
    axes.set_xscale("log")
    axes.set_xticks(workers, [f"{count:,}" for count in workers])
    axes.set_ylim(0, 100)
    axes.set_xlabel("machines")
    axes.set_ylabel("busy, % of the time")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file)
