"""Keeping meta-test on time: what a late learner gives up, step by step, instead of missing tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.speed import ENOUGH_STEPS, Speed
from autometa.core.time_policy import POLICY
from autometa.data.test_spec import TestSpec
from autometa.evaluation.member import Member, plain_member
from autometa.planning.plan import one_per_pass

SMALLEST_PX = 48
PX_STEP = 16
COARSER = (0.75, 0.5, 0.35)
"""Shares of the resolution that a late learner falls back to."""
REST_S, HEAD_S = 0.02, 0.004
"""What a task costs in meta-test beside networks and heads, and what a head does, until they are measured: less
rather than more, as what is given up for nothing is slow to come back."""
GUESS_STEPS = 3
"""Measured tasks that the guess of the former counts for: two odd tasks in the beginning tell little."""
MUCH_SLOWER = 3.0
"""A head that takes more times as long as nearest centroid may be replaced by it."""


@dataclass(frozen=True)
class FallbackLevel:
    """The members that answer at a level, and what that is, for people."""

    members: tuple[Member, ...]
    description: str


def fallback_levels(members: Sequence[Member], *, slow_head: bool) -> list[FallbackLevel]:
    """What a learner with these members answers with where time is short, the best first: all members, all without
    mirrored images, fewer and fewer of them (the least weight goes first), and, if the last one has a slow head,
    nearest centroid instead."""
    levels = [FallbackLevel(tuple(members), "all members answer")]
    plain = [member.model_copy(update={"flip": False}) for member in members]
    if plain != list(members):
        levels.append(FallbackLevel(tuple(plain), "no mirrored images"))
    by_weight = sorted(plain, key=lambda member: -member.weight)
    for n in range(len(plain) - 1, 0, -1):
        levels.append(FallbackLevel(tuple(by_weight[:n]), f"only {n} of {len(plain)} members"))
    if slow_head:
        last = by_weight[0]
        quick = plain_member(last.view, str(last.params["transform"]))
        levels.append(FallbackLevel((quick,), f"nearest centroid instead of {last.head}"))
    return levels


class TaskTimes:
    """Measured seconds per task of each head, and of everything beside networks and heads (images that travel,
    ingestion), on a clock. First times are not counted: they pay for what is loaded when first used."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heads: dict[tuple[View, str], Speed] = defaultdict(Speed)
        self._warm: set[tuple[View, str]] = set()
        self._rest = Speed()
        self._begun = 0
        self._began = 0.0
        self._inside_s = 0.0

    def begin(self, share: float = 1.0) -> None:
        """A task begins, and the one before has ended, which had this share of the whole work to do: seconds are
        those of the whole."""
        now = self._clock()
        if self._begun > 1:
            self._rest.add((now - self._began - self._inside_s) / share)
        self._begun, self._began, self._inside_s = self._begun + 1, now, 0.0

    @contextmanager
    def embedding(self) -> Iterator[None]:
        """Around the networks, whose speed the feature store measures."""
        elapsed = stopwatch(self._clock)
        yield
        self._inside_s += elapsed()

    @contextmanager
    def answering(self, member: Member) -> Iterator[None]:
        """Around a member's head."""
        elapsed = stopwatch(self._clock)
        yield
        seconds, head = elapsed(), _head_of(member)
        self._inside_s += seconds
        if head in self._warm:
            self._heads[head].add(seconds)
        self._warm.add(head)

    def rest_s(self, guess_s: float = REST_S) -> float:
        """Seconds per task to reserve for what is neither network nor head; the guess counts as a few tasks."""
        measured_s = len(self._rest) * (self._rest.mean_s or 0.0)
        return POLICY.least_margin * (GUESS_STEPS * guess_s + measured_s) / (GUESS_STEPS + len(self._rest))

    def head_s(self, member: Member) -> float:
        """Seconds per task to reserve for a member's head."""
        return POLICY.least_margin * (self._heads[_head_of(member)].mean_s or HEAD_S)

    def is_slow(self, member: Member) -> bool:
        """Whether a member's head is known to take much longer than nearest centroid."""
        quick = self._heads[_head_of(plain_member(member.view))].mean_s or HEAD_S
        return (self._heads[_head_of(member)].mean_s or 0.0) > MUCH_SLOWER * quick


def _head_of(member: Member) -> tuple[View, str]:
    """A head on a view; mirrored images make no difference to it."""
    return replace(member.view, flip=False), member.head


@dataclass
class MetaTestSchedule:
    """How much is still to answer, and which members the time left allows for it: `tasks_left` tasks, at most
    `images` distinct images over all tasks, `shown_left` with repeats. `report` gets a line for every change.
    `start_s`: what the start of a process takes where each task has one; else 0."""

    budget: TimeBudget
    tasks_left: int
    images: float
    shown_left: float = float("inf")
    report: Callable[[str], None] = print
    start_s: float = 0.0
    coarse: Member | None = field(default=None, init=False)
    _level: int = field(default=0, init=False)
    _slow_head: bool = field(default=False, init=False)
    _task_limit_s: float = field(default=float("inf"), init=False)

    def __post_init__(self) -> None:
        self.times = TaskTimes(self.budget.clock)
        self._task_until = self.budget.clock()

    @classmethod
    def of(
        cls, test: TestSpec, budget: TimeBudget, report: Callable[[str], None], start_s: float = 0.0
    ) -> MetaTestSchedule:
        """The schedule of a declared meta-test that is still to come. `start_s`: what the start of this process has
        taken, which is paid again where tasks are isolated."""
        again_s = POLICY.slowdown * start_s + POLICY.between_s if test.isolated else 0.0
        return cls(budget, test.tasks, test.embedded_images, test.shown_images, report, again_s)

    def begin_task(self, members: tuple[Member, ...], store: FeatureStore) -> tuple[Member, ...]:
        """The members that are to answer the task that begins: the best that the time left allows. What was given
        up comes back where the time clearly allows it, except a resolution: that would mean to embed every image
        again."""
        self.begin()
        if (coarse := self.coarse) is not None:
            cost_s = self.cost_s([coarse], store)
            late = cost_s > self.left_s()
            return ((self._coarsened(coarse, cost_s, store) if late else None) or coarse,)
        if self.times.is_slow(max(members, key=lambda member: member.weight)):
            self._slow_head = True  # for good, so that levels keep their places
        levels = fallback_levels(members, slow_head=self._slow_head)
        costs = [self.cost_s(level.members, store) for level in levels]
        left_s = self.left_s()
        limits = [POLICY.clearly_share * left_s] * self._level + [left_s] * (len(levels) - self._level)
        allowed = [n for n, limit_s in enumerate(limits) if costs[n] <= limit_s]
        cheapest = min(range(len(levels)), key=lambda n: costs[n])
        if not allowed and (coarser := self._coarsened(levels[-1].members[0], costs[cheapest], store)):
            return (coarser,)
        self._move(levels, costs, allowed[0] if allowed else cheapest)
        return levels[self._level].members

    def expect(self, tasks: int, shown_images: float, task_limit_s: float = float("inf")) -> None:
        """So many tasks are still to come, with the one that begins, and so many images in them, repeats counted.
        The one that begins is ended after `task_limit_s` seconds."""
        self.tasks_left, self.shown_left, self._task_limit_s = tasks, shown_images, task_limit_s

    def begin(self, share: float = 1.0) -> None:
        """A task begins, and the one before has ended, which had this share of the whole work to do."""
        self.times.begin(share)
        task_s = self.left_s()
        if self.tasks_left > 1:
            task_s = min(POLICY.task_share * task_s, POLICY.task_limit_share * self._task_limit_s)
        self._task_until = self.budget.clock() + task_s

    def task_left_s(self) -> float:
        """Seconds that the task that has begun may still take."""
        return self._task_until - self.budget.clock()

    def count_images(self, n_images: int) -> None:
        """So many images have come, repeats counted."""
        self.shown_left = max(self.shown_left - n_images, 0)

    def end_task(self) -> None:
        """A task is answered."""
        self.tasks_left = max(self.tasks_left - 1, 0)

    def cost_s(self, members: Sequence[Member], store: FeatureStore) -> float:
        """Predicted seconds, with margins, until these members have answered the last task."""
        passes = one_per_pass(member.view for member in members)
        network_s = sum(self.images_left(view, store) * reserve_image_s(view, store) for view in passes)
        task_s = self.times.rest_s() + sum(map(self.times.head_s, members))
        return network_s + self.tasks_left * task_s

    def images_left(self, view: View, store: FeatureStore) -> float:
        """Images that are still to be embedded in a view, at most."""
        return min(max(self.images - store.embedded(view), 0), self.shown_left)

    def left_s(self) -> float:
        """Seconds for tasks, which leave some to end in, and to start the processes of later tasks."""
        return self.budget.left_s() - POLICY.closing_s - max(self.tasks_left - 1, 0) * self.start_s

    @property
    def loads_left(self) -> int:
        """How many processes are still to build engines, this one counted."""
        return self.tasks_left if self.start_s else 1

    def _move(self, levels: Sequence[FallbackLevel], costs: Sequence[float], to: int) -> None:
        if to > self._level:
            self.report(
                f"{self._late(costs[self._level])}: {levels[to].description} from now on ({costs[to]:.1f} s)"
            )
        elif to < self._level:
            need = f"{costs[to]:.1f} of {self.left_s():.1f} s left"
            self.report(f"meta-test has time again: {levels[to].description} from now on ({need})")
        self._level = to

    def _coarsened(self, member: Member, now_s: float, store: FeatureStore) -> Member | None:
        """Nearest centroid on the first coarser view that the time left allows, else on the coarsest, from now on.
        None while the margin may be enough for what is missing; where it is little gain, since nothing is measured
        yet, nearly all is embedded, or other things than networks take the time; and where a network has one
        size."""
        fine = member.view
        sizes = [
            store.input_px(fine, max(int(fine.px * share) // PX_STEP * PX_STEP, SMALLEST_PX))
            for share in COARSER
        ]
        options = [plain_member(replace(fine.plain, px=px)) for px in sizes if px < fine.px]
        costs = [self.cost_s([option], store) for option in options]
        left_s = self.left_s()
        if now_s <= POLICY.least_margin * left_s:
            return None
        best = next((n for n, cost_s in enumerate(costs) if cost_s <= left_s), len(options) - 1)
        if not options or costs[best] > POLICY.coarser_share * now_s:
            return None
        self.coarse = options[best]
        self.report(f"{self._late(now_s)}: only {options[best].view} from now on ({costs[best]:.1f} s)")
        return self.coarse

    def _late(self, needed_s: float) -> str:
        need = f"{self.tasks_left} tasks need {needed_s:.1f} of {self.left_s():.1f} s left"
        return f"meta-test is late ({need})"


def reserve_image_s(view: View, store: FeatureStore) -> float:
    """Seconds per image to reserve: as measured in the view, else by the number of pixels from what was measured of
    its network, the most like it; 0 before any measurement."""
    measured = [other for other in store.measured(view) if other.source != view.source]
    if len(store.speed(view)) or not measured:
        return POLICY.least_margin * _usual_s(store.speed(view))
    like = min(measured, key=lambda other: abs(other.px - view.px))
    return POLICY.least_margin * _usual_s(store.speed(like)) * _pixels(view) / _pixels(like)


def _usual_s(speed: Speed) -> float:
    """Seconds per image: the mean of recent chunks, the median of a few, whose first one is slow."""
    if len(speed) < ENOUGH_STEPS:
        return speed.percentile_s(50) if len(speed) else 0.0
    return speed.mean_s or 0.0


def _pixels(view: View) -> int:
    return (2 if view.flip else 1) * view.px**2
