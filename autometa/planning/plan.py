"""From measured costs and budgets to a plan: pure functions of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from autometa.backbones import View
from autometa.core.budget import Limits
from autometa.core.time_policy import POLICY, TimePolicy
from autometa.data.test_spec import TestSpec
from autometa.learners.trained import TrainedCosts

HEADS_S = 0.02
"""What all heads take for a task, until that is measured."""
TASK_OVERHEAD_S = 0.01
IMAGE_OVERHEAD_S = 0.0002
"""Meta-test beside the networks: tasks and their images travel between processes."""


@dataclass(frozen=True)
class Costs:
    """Measured seconds: starting a process with all imports, an image in each view, a task in all heads, and building
    the engine of a view in a new process. `margins`: by how much more than measured an image in a view may cost,
    `policy.slowdown` where a view has none. `learners`: what trained learners cost that answer beside the heads.
    `save_s`: what saving them at the end of meta-training takes."""

    start_s: float
    image_s: Mapping[View, float]
    task_s: float = HEADS_S
    engine_s: Mapping[View, float] = field(default_factory=dict)
    margins: Mapping[View, float] = field(default_factory=dict)
    learners: tuple[TrainedCosts, ...] = ()
    save_s: float = 0.0
    policy: TimePolicy = POLICY

    @property
    def finish_s(self) -> float:
        """Seconds for the last choices and for saving at the end of meta-training."""
        return self.policy.ensemble_s + self.save_s

    def reserved_image_s(self, view: View) -> float:
        """Seconds per image in a view, with their margin."""
        return self.margins.get(view, self.policy.slowdown) * self.image_s[view]


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
    """Predicted seconds of meta-test with these views and the learners of `costs`, from the start of its process to
    the last answer. Where tasks are isolated, each pays for a start and for engines of its own."""
    passes, learners, policy = one_per_pass(views), costs.learners, costs.policy
    image_s = sum(costs.reserved_image_s(v) for v in passes)
    image_s += policy.slowdown * sum(learner.image_s for learner in learners)
    load_s = sum(costs.engine_s.get(v, 0.0) for v in passes) + sum(learner.load_s for learner in learners)
    task_s = TASK_OVERHEAD_S + costs.task_s + sum(learner.task_s for learner in learners)
    others_s = load_s * test.processes + test.tasks * task_s + test.moved_images * IMAGE_OVERHEAD_S
    return (
        test.start_s(costs.start_s)
        + test.embedded_images * image_s
        + policy.slowdown * others_s
        + policy.closing_s
    )


def make_plan(left_s: float, views: Iterable[View], test: TestSpec, costs: Costs) -> Plan:
    """Split what is left: meta-test with the views chosen so far is reserved first, the last choices and
    saving next, the rest is for the search (negative: there is no time for one)."""
    names = ", ".join(map(str, views := sorted(views)))
    reserve_s, finish_s = meta_test_s(views, test, costs), costs.finish_s
    search_s = left_s - reserve_s - finish_s
    why = (
        f"{left_s:.1f} s left: {reserve_s:.1f} s for meta-test ({test.tasks} tasks, at most "
        f"{test.embedded_images:.0f} images, {names}), {finish_s:.1f} s to finish, {max(search_s, 0):.1f} s to search"
    )
    return Plan(search_s, reserve_s, why)


def affordable(
    views: Iterable[View], left_s: float, embed_images: Mapping[View, int], test: TestSpec, costs: Costs
) -> bool:
    """Whether meta-test with all these views still fits in `left_s` after embedding `embed_images` in each view."""
    views = list(views)
    new = {v.source: costs.reserved_image_s(v) * embed_images.get(v, 0) for v in views if v in embed_images}
    return sum(new.values()) + meta_test_s(views, test, costs) <= left_s


def left_for_training_s(limits: Limits, reserve_s: float, save_s: float) -> float:
    """Seconds until a system that trains one learner or a few must end its training, with `reserve_s` for meta-test
    and `save_s` for saving; negative where there are none."""
    return min(limits.train.left_s(), limits.run.left_s() - reserve_s) - save_s
