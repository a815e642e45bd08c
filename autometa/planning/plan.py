"""From measured costs and budgets to a plan: pure functions of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from autometa.backbones import View
from autometa.core.speed import SLOWDOWN
from autometa.data.test_spec import TestSpec

HEADS_S = 0.02
"""What all heads take for a task, until that is measured."""
TASK_OVERHEAD_S = 0.01
IMAGE_OVERHEAD_S = 0.0002
"""Meta-test beside the networks: tasks and their images travel between processes."""
CLOSING_S = 1.5
ENSEMBLE_S, SAVE_S = 2.0, 1.0
FINISH_S = ENSEMBLE_S + SAVE_S
"""Choosing and saving the ensemble at the end of meta-training."""


@dataclass(frozen=True)
class Costs:
    """Measured seconds: starting a process with all imports, an image in each view, a task in all heads,
    and building the engine of a view in a new process. `margins`: by how much more than measured an image in a
    view may cost, `SLOWDOWN` where it is not told."""

    start_s: float
    image_s: Mapping[View, float]
    task_s: float = HEADS_S
    engine_s: Mapping[View, float] = field(default_factory=dict)
    margins: Mapping[View, float] = field(default_factory=dict)

    def reserved_image_s(self, view: View) -> float:
        """Seconds per image in a view, with their margin."""
        return self.margins.get(view, SLOWDOWN) * self.image_s[view]


@dataclass(frozen=True)
class Plan:
    """Seconds for what is ahead, and why."""

    search_s: float
    meta_test_s: float
    why: str


def one_per_pass(views: Iterable[View]) -> list[View]:
    """A view for each pass of a network: those that differ in layers only share one."""
    return list({view.source: view for view in sorted(views)}.values())


def meta_test_s(views: Iterable[View], test: TestSpec, costs: Costs) -> float:
    """Predicted seconds of meta-test with these views, from process start to the last answer."""
    passes = one_per_pass(views)
    network = test.embedded_images * sum(costs.reserved_image_s(v) for v in passes)
    engines = sum(costs.engine_s.get(v, 0.0) for v in passes)
    overhead = test.tasks * (TASK_OVERHEAD_S + costs.task_s) + test.shown_images * IMAGE_OVERHEAD_S
    return test.start_s(costs.start_s) + network + SLOWDOWN * (engines + overhead) + CLOSING_S


def make_plan(left_s: float, views: Iterable[View], test: TestSpec, costs: Costs) -> Plan:
    """Split what is left: meta-test with the views chosen so far is reserved first, the ensemble and saving
    next, the rest is for the search (negative: there is no time for one)."""
    names = ", ".join(map(str, views := sorted(views)))
    reserve = meta_test_s(views, test, costs)
    search = left_s - reserve - FINISH_S
    why = (
        f"{left_s:.1f} s left: {reserve:.1f} s for meta-test ({test.tasks} tasks, at most "
        f"{test.embedded_images:.0f} images, {names}), {FINISH_S:.1f} s to finish, {max(search, 0):.1f} s to search"
    )
    return Plan(search, reserve, why)


def affordable(
    views: Iterable[View], left_s: float, embed_images: Mapping[View, int], test: TestSpec, costs: Costs
) -> bool:
    """Whether meta-test with all these views still fits after embedding so many validation images more."""
    views = list(views)
    new = {v.source: costs.reserved_image_s(v) * embed_images.get(v, 0) for v in views if v in embed_images}
    return sum(new.values()) + meta_test_s(views, test, costs) <= left_s
