"""How well a classifier tells its own examples apart, each answered by the others."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from autometa.classifier.portfolio_space import PortfolioSpace
from autometa.classifier.spaces import Space, Support
from autometa.heads.features import unit

MOST_IMAGES = 200
"""Examples that are answered, evenly spread: each takes a classifier of its own."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """Share of the examples that were answered rightly, half its 95 % interval (binomial, normal approximation), and
    how many they were."""

    accuracy: float
    ci95: float
    images: int


def leave_one_out(space: Space, support: Support) -> Judged:
    """Each example answered by all others, alone. ValueError where no class has two examples."""
    sizes = support.labels.bincount(minlength=support.ways)
    candidates = torch.nonzero(sizes[support.labels] > 1).flatten()
    if not len(candidates):
        raise ValueError("no class has two examples, so none can be answered by the others; give more of one")
    chosen = candidates[np.unique(np.linspace(0, len(candidates) - 1, MOST_IMAGES).astype(int))]
    right = 0
    everything = torch.arange(len(support.labels))
    for place in chosen.tolist():
        rest = support.take(everything[everything != place])
        query = {name: each[place : place + 1] for name, each in support.encoded.items()}
        right += int(space.answer(rest, query, transductive=False).argmax()) == int(support.labels[place])
    share = right / len(chosen)
    return Judged(share, 1.96 * float(np.sqrt(share * (1 - share) / len(chosen))), len(chosen))


def judge_members(space: Space, support: Support) -> Any:
    """Rows for `leaderboard`: the whole, then each view of a portfolio alone."""
    whole = leave_one_out(space, support)
    rows = [_row("all", 1.0, whole)]
    if isinstance(space, PortfolioSpace) and len(space.portfolio.views) > 1:
        columns = space.columns()
        for number, (name, weight) in enumerate(space.members()):
            own = {name: parts[number] for name, parts in columns.items()}
            rows.append(_row(name, weight, leave_one_out(space, _view_alone(support, own))))
    if importlib.util.find_spec("pandas") is None:
        return rows
    import pandas  # noqa: PLC0415 - optional

    return pandas.DataFrame(rows)


def _row(name: str, weight: float, judged: Judged) -> Row:
    return {
        "member": name,
        "weight": weight,
        "accuracy": judged.accuracy,
        "ci95": judged.ci95,
        "images": judged.images,
    }


def _view_alone(support: Support, columns: Mapping[str, slice]) -> Support:
    """The examples as one view sees them, which has these columns of each of the rows."""
    encoded = {name: unit(each[:, columns[name]].float()) for name, each in support.encoded.items()}
    return Support(encoded, support.labels, support.ways)
