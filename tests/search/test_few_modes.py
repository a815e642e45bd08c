"""With a fake forecast: what is asked of it, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from autometa.backbones import View
from autometa.core.budget import SMALL_BYTES
from autometa.core.errors import BudgetExhausted
from autometa.heads.modes import SIX_MODES, UNFITTED
from autometa.planning.memory import Task
from autometa.search.few_modes import ONE_MODE, choose_modes

VIEW = View("test_net", 128)
FOLDS: list[Any] = ["a fold", "another"]


@dataclass
class Memory:
    """Like a `MemoryBudget` of a process that holds 350 MB."""

    total_bytes: int

    @property
    def is_small(self) -> bool:
        return self.total_bytes < SMALL_BYTES

    def left_bytes(self) -> int:
        return self.total_bytes - 350_000_000

    def fits(self, n_bytes: int) -> bool:
        return n_bytes <= self.left_bytes()


def forecast(total_mb: int, serving_mb: int = 0) -> Any:
    def serving_bytes(_: Sequence[View], modes: Sequence[str]) -> int:
        return serving_mb * len(modes) * 10**6

    return SimpleNamespace(
        limits=SimpleNamespace(memory=Memory(total_mb * 10**6)),
        largest_task=Task(800, 128),
        width=lambda _: 1712,
        serving_bytes=serving_bytes,
    )


@pytest.mark.parametrize(
    ("total_mb", "modes", "folds"),
    [(2000, SIX_MODES, 2), (1000, SIX_MODES, 2), (620, SIX_MODES, 0), (480, ONE_MODE, 0), (435, UNFITTED, 0)],
)
def test_the_less_memory_the_fewer_modes(total_mb: int, modes: Sequence[str], folds: int) -> None:
    chosen, asked = choose_modes(forecast(total_mb), VIEW, FOLDS, 1000, fitted=True)
    assert (chosen, len(asked)) == (modes, folds)


def test_what_meta_test_takes_counts_too() -> None:
    assert choose_modes(forecast(1000, 200), VIEW, FOLDS, 1000, fitted=True)[0] == ONE_MODE


def test_without_classes_nothing_is_fitted() -> None:
    assert choose_modes(forecast(4000), VIEW, [], 1000, fitted=False) == (UNFITTED, [])
    assert choose_modes(forecast(1000), VIEW, [], 1000, fitted=False) == (UNFITTED, [])


def test_too_little_for_any_mode_is_told_with_the_figure() -> None:
    with pytest.raises(BudgetExhausted, match=r"400 MB has room for nearest centroids only; with 4\d\d MB"):
        choose_modes(forecast(400), VIEW, FOLDS, 1000, fitted=True)
