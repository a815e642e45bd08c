"""The plots of the original program: a histogram of all tasks, and heat maps per dataset, ways and shots; and
a reliability diagram.

Figures are drawn directly, without pyplot or a screen.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scoring.calibration import BINS, Reliability
from scoring.metrics import Metric
from scoring.summary import Summary, TaskScore
from scoring.text import one_line

_DPI = 80
_COLOUR = "#2f6f9f"
_HISTOGRAM_BINS = 40
_HEATMAP_BINS = 10
_MAX_ROWS = 100  # a figure with more is unreadable and slow
_LABEL_CHARACTERS = 24

Values = NDArray[np.float64]
Png = bytes


def draw_plots(tasks: Sequence[TaskScore], summary: Summary, metrics: Sequence[Metric]) -> dict[str, Png]:
    """Draw four plots per metric; returns PNG data by file name, in the order of the report."""
    kinds: tuple[tuple[str, str, tuple[str, ...], Callable[[TaskScore], str]], ...] = (
        ("dataset", "dataset", tuple(group.name for group in summary.datasets), lambda task: task.dataset),
        ("way", "ways", tuple(group.name for group in summary.ways), lambda task: str(task.ways)),
        ("shot", "shots", tuple(group.name for group in summary.shots), lambda task: str(task.shots)),
    )
    plots: dict[str, Png] = {}
    with warnings.catch_warnings():
        # Names may have characters that the font lacks: a box is drawn instead, so no warning is needed.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        for metric in metrics:
            values = np.array([task.values[metric.key] for task in tasks])
            plots[f"overall_histogram_{metric.slug}.png"] = _histogram(values, metric.title)
            for kind, title, names, name_of in kinds:
                members = np.array([name_of(task) for task in tasks], dtype=object)
                rows = {name: values[members == name] for name in names[:_MAX_ROWS]}
                plots[f"heatmap_{kind}_{metric.slug}.png"] = _heatmap(rows, metric.title, title)
    return plots


def draw_reliability(reliability: Reliability) -> Png:
    """Draw accuracy against confidence per bin, and below how many queries each bin holds, as PNG data."""
    figure = Figure(figsize=(4.4, 4.2), dpi=_DPI)
    FigureCanvasAgg(figure)
    sizes = {"left": 0.15, "right": 0.97, "bottom": 0.12, "top": 0.97, "hspace": 0.08}
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1), gridspec_kw=sizes)
    held = reliability.counts > 0
    lefts = np.arange(BINS)[held] / BINS
    style: dict[str, Any] = {"width": 1 / BINS, "align": "edge", "edgecolor": "white", "color": _COLOUR}
    above.bar(lefts, reliability.hits[held] / reliability.counts[held], alpha=0.6, **style)
    above.plot(
        reliability.confidences[held] / reliability.counts[held],
        reliability.hits[held] / reliability.counts[held],
        "k.",
        clip_on=False,
    )
    above.plot((0, 1), (0, 1), color="black", linewidth=1, linestyle="--")
    above.set_ylabel("accuracy")
    above.set(xlim=(0, 1), ylim=(0, 1.03))
    below.bar(lefts, reliability.counts[held], alpha=0.6, **style)
    below.set_ylabel("queries")
    below.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    below.set_xlabel("confidence (dashed: perfectly calibrated)")
    for axes in (above, below):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.align_ylabels()
    return _png(figure)


def _histogram(values: Values, metric: str) -> Png:
    figure, axes = _new_figure(9.0, 3.2, left_in=0.7)
    low, high = _span(values)
    counts, edges = np.histogram(values, bins=_HISTOGRAM_BINS, range=(low, high))
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=_COLOUR, alpha=0.6, linewidth=0)
    density = _density(values, grid := np.linspace(low, high, 200))
    if density is not None:
        axes.plot(grid, density * len(values) * (edges[1] - edges[0]), color=_COLOUR)
    axes.axvline(float(values.mean()), color="black", linewidth=1, linestyle="--")
    axes.set_xlabel(f"{metric} (dashed: mean {values.mean():.3f})")
    axes.set_ylabel("tasks")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return _png(figure)


def _density(values: Values, grid: Values) -> Values | None:
    """Gaussian kernel density [grid] with the bandwidth of Scott; None if all values are equal."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    if spread < 1e-9:
        return None
    bandwidth = spread * len(values) ** -0.2
    total = np.zeros_like(grid)
    for value in values:  # one at a time, so that memory is only needed for one curve
        total += np.exp(-0.5 * ((grid - value) / bandwidth) ** 2)
    return np.asarray(total / (len(values) * bandwidth * np.sqrt(2 * np.pi)), dtype=np.float64)


def _heatmap(rows: dict[str, Values], metric: str, groups: str) -> Png:
    low, high = _span(np.concatenate(list(rows.values())))
    edges = np.linspace(low, high, _HEATMAP_BINS + 1)
    counts = np.array([np.histogram(values, bins=edges)[0] for values in rows.values()])
    labels = [one_line(name, _LABEL_CHARACTERS) for name in rows]
    left_in = 0.4 + 0.085 * max(map(len, labels))
    figure, axes = _new_figure(9.0, 0.7 + 0.25 * len(rows), left_in=left_in)
    top = max(1, int(counts.max()))
    axes.pcolormesh(counts, cmap="Blues", vmin=0, vmax=top, edgecolors="white", linewidth=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        count = int(counts[row, column])
        colour = "white" if count > 0.6 * top else "black"
        axes.text(column + 0.5, row + 0.5, str(count), ha="center", va="center", color=colour, fontsize=7)
    axes.set_yticks(np.arange(len(rows)) + 0.5, labels, parse_math=False, fontsize=8)
    axes.set_xticks(np.arange(_HEATMAP_BINS + 1), [f"{edge:.2f}" for edge in edges], fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set_xlabel(f"{metric} (number of tasks)", fontsize=9)
    figure.text(0.005, 0.5, groups, rotation="vertical", va="center", fontsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return _png(figure)


def _span(values: Values) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if high - low > 1e-9 else (low - 0.05, high + 0.05)


def _new_figure(width_in: float, height_in: float, *, left_in: float) -> tuple[Figure, Axes]:
    """Make a figure with fixed margins in inches, since an automatic layout draws all texts twice."""
    figure = Figure(figsize=(width_in, height_in), dpi=_DPI)
    FigureCanvasAgg(figure)
    bottom, top = 0.55 / height_in, 1 - 0.12 / height_in
    figure.subplots_adjust(left=left_in / width_in, right=1 - 0.3 / width_in, bottom=bottom, top=top)
    return figure, figure.add_subplot()


def _png(figure: Figure) -> Png:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4})
    return buffer.getvalue()
