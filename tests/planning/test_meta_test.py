"""What a late learner gives up in meta-test, step by step, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import FakeClock, colour_pool

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.evaluation.member import Member, plain_member
from autometa.heads import METRICS, Metric, apply_head
from autometa.model import fitted_learner as learner_module
from autometa.model.fitted_learner import FittedLearner
from autometa.planning.meta_test import (
    GUESS_STEPS,
    HEAD_S,
    REST_S,
    SMALLEST_PX,
    MetaTestSchedule,
    fallback_levels,
)

IMAGES, TASKS = 1000, 100
SPARE_S = 1e-6


def member(px: int, head: str = "ridge", weight: float = 1.0, *, flip: bool = False) -> Member:
    params = {"transform": "cl2n"} | ({"strength": 1.0} if head == "ridge" else {})
    return Member(backbone="net", px=px, flip=flip, head=head, params=params, weight=weight)


FIRST, SECOND, THIRD = member(128, weight=3, flip=True), member(96, weight=1), member(160, weight=2)
ALL = (FIRST, SECOND, THIRD)
PLAIN = FIRST.model_copy(update={"flip": False})


def store_of(input_px: Callable[[int], int]) -> FeatureStore:
    """A store of networks that work at these sizes, and of nothing else."""
    network: Any = SimpleNamespace(input_px=input_px)
    return FeatureStore(lambda *_: network, MemoryBudget(2**40))


class Race:
    """A schedule whose clock, and a store whose speeds, the test sets."""

    def __init__(self, members: tuple[Member, ...]) -> None:
        self.clock = FakeClock()
        self.lines: list[str] = []
        self.members = members
        self.schedule = MetaTestSchedule(
            TimeBudget.of(1e6, self.clock), TASKS, IMAGES, report=self.lines.append
        )
        self.store = store_of(lambda px: px)
        for each in members:
            self.store.speed(each.view).add((2 if each.flip else 1) * each.px**2 * 1e-6)

    def leave(self, seconds: float) -> None:
        """So much time is left for tasks."""
        self.schedule.budget.deadline += seconds - self.schedule.left_s()

    def begin(self) -> tuple[Member, ...]:
        return self.schedule.begin_task(self.members, self.store)

    def cost_s(self, *members: Member) -> float:
        return self.schedule.cost_s(members, self.store)

    def answer(self, each: Member, seconds: float, times: int = 3) -> None:
        for _ in range(times):
            with self.schedule.times.answering(each):
                self.clock.now += seconds


def test_the_ladder_goes_down_in_order() -> None:
    levels = [level.members for level in fallback_levels(ALL, slow_head=True)]
    quick = plain_member(PLAIN.view, "cl2n")
    assert levels == [ALL, (PLAIN, SECOND, THIRD), (PLAIN, THIRD), (PLAIN,), (quick,)]
    assert fallback_levels((SECOND,), slow_head=False)[-1].members == (SECOND,)


def test_what_is_late_costs_mirrored_images_first_then_members() -> None:
    race = Race(ALL)
    assert race.begin() == ALL
    for expected in ((PLAIN, SECOND, THIRD), (PLAIN, THIRD), (PLAIN,)):
        race.leave(race.cost_s(*expected) + SPARE_S)
        assert race.begin() == expected
        assert race.begin() == expected
    said = ("no mirrored images from now on", "only 2 of 3 members from now on", "only 1 of 3 members")
    assert len(race.lines) == len(said)
    assert all(words in line for words, line in zip(said, race.lines, strict=True))
    assert race.lines[0].startswith(f"meta-test is late ({TASKS} tasks need ")
    assert race.schedule.coarse is None


def test_a_pass_that_members_share_is_paid_once() -> None:
    twin = FIRST.model_copy(update={"layers": ("last", "stage4")})
    race = Race((FIRST,))
    head_s = POLICY.least_margin * TASKS * HEAD_S
    assert race.cost_s(FIRST, twin) == pytest.approx(race.cost_s(FIRST) + head_s)
    network_s = IMAGES * 2 * 128**2 * 1e-6
    assert race.cost_s(FIRST) == pytest.approx(POLICY.least_margin * (network_s + TASKS * (REST_S + HEAD_S)))


def test_images_left_are_those_that_a_view_has_not_seen_and_that_still_come() -> None:
    race = Race((SECOND,))
    race.store._tables[SECOND.view.source].add(list(range(300)), torch.zeros(300, 2))
    assert race.schedule.images_left(SECOND.view, race.store) == IMAGES - 300
    assert race.schedule.images_left(FIRST.view, race.store) == IMAGES
    race.schedule.shown_left = 500
    race.schedule.count_images(100)
    assert race.schedule.images_left(FIRST.view, race.store) == 400


def test_a_slow_head_gives_way_to_nearest_centroid_before_the_resolution_does() -> None:
    race = Race((PLAIN,))
    race.begin()
    race.answer(PLAIN, 2.0)
    assert race.schedule.times.head_s(PLAIN) == pytest.approx(POLICY.least_margin * 2.0)
    quick = plain_member(PLAIN.view, "cl2n")
    race.leave(race.cost_s(quick) + SPARE_S)
    assert race.begin() == (quick,)
    assert "nearest centroid instead of ridge from now on" in race.lines[0]
    race.answer(quick, 1.9)  # no faster, as is seen now
    assert race.begin() != (PLAIN,)


def test_a_quick_head_stays_and_the_resolution_falls() -> None:
    race = Race((PLAIN,))
    race.answer(PLAIN, HEAD_S)
    race.leave(race.cost_s(plain_member(View("net", 64))) + SPARE_S)
    assert race.begin() == (plain_member(View("net", 64)),)
    assert "only net@64 from now on" in race.lines[0]


def test_a_lower_resolution_stays_and_may_become_lower_still() -> None:
    race = Race(ALL)
    race.leave(race.cost_s(plain_member(View("net", 96))) + SPARE_S)
    assert race.begin()[0].px == 96
    race.leave(1e5)
    assert race.begin()[0].px == 96
    race.store.speed(View("net", 96)).add(100.0)
    race.leave(1.0)
    assert race.begin()[0].px == SMALLEST_PX
    assert len(race.lines) == 2


def test_nothing_is_coarser_where_that_is_no_gain() -> None:
    unmeasured = Race((SECOND,))
    unmeasured.store = store_of(lambda px: px)
    unmeasured.leave(-5.0)
    assert unmeasured.begin() == (SECOND,)
    embedded = Race((SECOND,))
    embedded.store._tables[SECOND.view.source].add(list(range(IMAGES)), torch.zeros(IMAGES, 2))
    embedded.leave(-5.0)
    assert embedded.begin() == (SECOND,)
    busy = Race((SECOND,))  # with other things than networks
    busy.schedule.images = 10
    busy.leave(0.1)
    assert busy.begin() == (SECOND,)
    fixed = Race((SECOND,))
    fixed.store = store_of(lambda px: SECOND.px)
    fixed.store.speed(SECOND.view).add(1.0)
    fixed.leave(5.0)
    assert fixed.begin() == (SECOND,)
    assert not any(race.lines for race in (unmeasured, embedded, busy, fixed))


def test_the_margin_is_used_up_before_the_resolution_falls() -> None:
    race = Race((SECOND,))
    race.leave(race.cost_s(SECOND) / POLICY.least_margin + SPARE_S)
    assert race.begin() == (SECOND,)
    race.leave(0.9 * race.cost_s(SECOND) / POLICY.least_margin)
    assert race.begin()[0].px < SECOND.px


def test_a_slow_first_chunk_tells_little() -> None:
    race = Race((SECOND,))
    before_s = race.cost_s(SECOND)
    race.store.speed(SECOND.view).add(60.0)
    race.store.speed(SECOND.view).add(96**2 * 1e-6)
    assert race.cost_s(SECOND) == pytest.approx(before_s)


def test_what_was_given_up_comes_back_only_where_the_time_clearly_allows_it() -> None:
    race = Race(ALL)
    race.leave(race.cost_s(PLAIN) + SPARE_S)
    assert race.begin() == (PLAIN,)
    race.leave(race.cost_s(*ALL))
    assert race.begin() != ALL
    race.leave(race.cost_s(*ALL) / POLICY.clearly_share + SPARE_S)
    assert race.begin() == ALL
    assert "has time again: all members answer from now on" in race.lines[-1]


def test_the_rest_of_a_task_is_measured_but_for_the_first_one() -> None:
    race = Race((PLAIN,))
    for rest_s in (50.0, *[0.5] * 7):
        race.begin()
        with race.schedule.times.embedding():
            race.clock.now += 7
        race.answer(PLAIN, 3.0, times=1)
        race.clock.now += rest_s
        race.schedule.end_task()
    race.begin()
    assert race.schedule.times.rest_s() == pytest.approx(
        POLICY.least_margin * (GUESS_STEPS * REST_S + 7 * 0.5) / (GUESS_STEPS + 7)
    )
    assert race.schedule.times.head_s(PLAIN) == pytest.approx(POLICY.least_margin * 3.0)
    assert race.schedule.tasks_left == TASKS - 8


def test_the_pace_of_a_declared_test() -> None:
    spec = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
    schedule = MetaTestSchedule.of(TestSpec(20, spec, 100, "x", 150), TimeBudget.of(60, FakeClock()), print)
    assert (schedule.tasks_left, schedule.images, schedule.shown_left) == (20, 100, 150)
    assert schedule.left_s() == 60 - POLICY.closing_s


@pytest.fixture
def slow_machine(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> tuple[FittedLearner, FakeClock]:
    """A learner of a mirrored view and another one, whose heads take 1 s, and nearest centroid 0.1 s."""
    shelf = BackboneShelf("cpu")
    params = {"transform": "cl2n", "strength": 1.0}
    mirrored = Member(backbone=tiny_backbone, px=64, flip=True, head="ridge", params=params, weight=2)
    members = (mirrored, Member(backbone=tiny_backbone, px=48, head="ridge", params=params))
    mean = torch.zeros(shelf(tiny_backbone).features)
    metrics = {(each.view, "cl2n"): Metric(METRICS["cl2n"], mean=mean) for each in members}
    clock = FakeClock()

    def slow(name, *args, **kwargs):  # type: ignore[no-untyped-def]
        clock.now += 0.1 if name == "centroid" else 1.0
        return apply_head(name, *args, **kwargs)

    monkeypatch.setattr(learner_module, "apply_head", slow)
    return FittedLearner(members, shelf, metrics), clock


@pytest.mark.medium
@pytest.mark.parametrize(
    ("seconds", "last"), [(100, ["ridge", "ridge"]), (60, ["ridge"]), (30, ["centroid"])]
)
def test_every_task_is_answered_in_time(
    slow_machine: tuple[FittedLearner, FakeClock], seconds: float, last: list[str]
) -> None:
    fitted, clock = slow_machine
    lines: list[str] = []
    schedule = fitted.schedule = MetaTestSchedule(TimeBudget.of(seconds, clock), 40, 480, 480, lines.append)
    pool = colour_pool(classes=40)
    labels = np.repeat(np.arange(3), 2)
    heads = []
    for task in range(40):
        rows = [pool.rows_of_class[(task + n) % 40] for n in range(3)]
        support, query = (pool.images[np.concatenate([r[a : a + 2] for r in rows])] for a in (0, 2))
        predictor = fitted.fit(support, labels, 3)
        p = predictor.predict(query)
        np.testing.assert_allclose(p.sum(1), 1)
        heads.append([each.head for each in predictor.members])
    assert schedule.tasks_left == 0
    assert schedule.left_s() >= 0
    assert heads[0] == ["ridge", "ridge"]
    assert last in heads and last == min(heads, key=lambda names: (len(names), names))
    assert [line for line in lines if "late" in line] == lines[: int(len(last) < 2)]


def test_without_mirrored_images_the_plain_pass_answers_with_the_same_metric(
    slow_machine: tuple[FittedLearner, FakeClock],
) -> None:
    fitted, clock = slow_machine
    mirrored = fitted.members[0]
    metric = fitted.metrics[mirrored.view, "cl2n"]
    fitted.members = (mirrored,)
    schedule = fitted.schedule = MetaTestSchedule(
        TimeBudget.of(2000, clock), 1, 1000, report=lambda line: None
    )
    fitted.store.speed(mirrored.view).add(3.0)
    pool = colour_pool()
    rows = np.concatenate([pool.rows_of_class[c][:4] for c in range(3)])
    predictor = fitted.fit(pool.images[rows], np.repeat(np.arange(3), 4), 3)
    plain = mirrored.model_copy(update={"flip": False})
    assert predictor.members == (plain,) and schedule.coarse is None
    assert (fitted.store.embedded(mirrored.view), fitted.store.embedded(plain.view)) == (0, len(rows))
    alone = FittedLearner((plain,), fitted.shelf, {(plain.view, "cl2n"): metric})
    expected = alone.fit(pool.images[rows], np.repeat(np.arange(3), 4), 3).predict(pool.images[:9])
    np.testing.assert_allclose(predictor.predict(pool.images[:9]), expected)
