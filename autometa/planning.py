"""From measured costs and budgets to a plan: pure functions of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from autometa.backbones import View
from autometa.episodes import EpisodeSpec
from autometa.speed import Speed

SLOWDOWN = 1.3
"""How much slower than measured a step may be; other load on a machine comes and goes."""
ENOUGH_STEPS = 8
"""Measured steps from which on their own 95th percentile says it."""
LEAST_MARGIN, MOST_MARGIN = 1.1, 1.6
"""Bounds of what the percentile may say, as multiples of the mean."""
HEADS_S = 0.02
"""What all heads take for a task, until that is measured."""
TASK_OVERHEAD_S = 0.01
IMAGE_OVERHEAD_S = 0.0002
"""Meta-test beside the networks: tasks and their images travel between processes."""
CLOSING_S = 1.5
STANDBY_SHARE = 0.3
"""Of the start of a process, that is reserved where it has started already."""
ENSEMBLE_S, SAVE_S = 2.0, 1.0
FINISH_S = ENSEMBLE_S + SAVE_S
"""Choosing and saving the ensemble at the end of meta-training."""


@dataclass(frozen=True)
class TestSpec:
    """The declared meta-test: number and form of tasks; `images` distinct ones at most and `drawn_images`
    over all tasks with repeats (None: unknown). `standby`: its process has started already."""

    tasks: int
    episodes: EpisodeSpec
    images: int | None
    protocol: str
    drawn_images: int | None = None
    standby: bool = False

    __test__ = False

    @property
    def is_cross_domain(self) -> bool:
        """Whether the tasks are of datasets that meta-training has not seen."""
        return self.protocol == "cross-domain"

    def start_s(self, whole_s: float) -> float:
        """Seconds to reserve for starting a process, which takes `whole_s`. What stands by is slow at first, too."""
        return STANDBY_SHARE * whole_s if self.standby else whole_s

    @property
    def shown_images(self) -> float:
        """Images over all tasks, repeats counted."""
        return self.drawn_images or self.tasks * self.episodes.mean_images

    @property
    def embedded_images(self) -> float:
        """Distinct images at most."""
        return self.shown_images if self.images is None else min(self.shown_images, self.images)


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


def margin(speed: Speed | None) -> float:
    """By how much more than its mean to reserve for work of a measured speed: up to the 95th percentile of its
    recent steps within bounds, or `SLOWDOWN` where they are too few."""
    if speed is None or len(speed) < ENOUGH_STEPS or not speed.mean_s:
        return SLOWDOWN
    return min(max(speed.percentile_s(95) / speed.mean_s, LEAST_MARGIN), MOST_MARGIN)


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
