"""Plans: meta-test is reserved by its cost, and the search gets what remains."""

from __future__ import annotations

from dataclasses import replace

from synthetic import FakeClock

from autometa.backbones import View
from autometa.core.budget import TimeBudget
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.planning.meta_test import MetaTestSchedule
from autometa.planning.plan import Costs, affordable, make_plan, meta_test_s

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
TEST = TestSpec(tasks=20, episodes=SPEC, images=100, protocol="within-domain")
SMALL, LARGE = View("net", 64), View("net", 128)
COSTS = Costs(start_s=2.0, image_s={SMALL: 0.01, LARGE: 0.04})


def test_meta_test_is_reserved_by_what_it_costs() -> None:
    assert meta_test_s([LARGE], TEST, COSTS) > meta_test_s([SMALL], TEST, COSTS) > 2.0
    more = TestSpec(tasks=200, episodes=SPEC, images=1000, protocol="x")
    assert meta_test_s([SMALL], more, COSTS) > meta_test_s([SMALL], TEST, COSTS)
    unknown = TestSpec(tasks=20, episodes=SPEC, images=None, protocol="x")
    assert unknown.embedded_images == 20 * SPEC.mean_images


def test_the_plan_leaves_the_search_what_remains() -> None:
    plan = make_plan(60, [SMALL], TEST, COSTS)
    assert plan.meta_test_s == meta_test_s([SMALL], TEST, COSTS)
    assert 0 < plan.search_s < 60 - plan.meta_test_s
    assert "meta-test" in plan.why
    assert make_plan(3, [SMALL], TEST, COSTS).search_s < 0


def test_views_are_affordable_together_or_not() -> None:
    need = meta_test_s([SMALL], TEST, COSTS)
    assert affordable([SMALL], need + 0.1, {}, TEST, COSTS)
    assert not affordable([SMALL], need + 0.1, {SMALL: 1000}, TEST, COSTS)
    assert not affordable([SMALL, LARGE], need + 0.1, {}, TEST, COSTS)


def test_isolated_tasks_pay_for_their_own_start_and_engines() -> None:
    alone = replace(TEST, isolated=True)
    assert alone.start_s(2.0) > 2.0 * TEST.tasks and TEST.start_s(2.0) == 2.0
    assert alone.embedded_images == TEST.shown_images > TEST.embedded_images
    started = replace(COSTS, engine_s={SMALL: 1.0})
    more_s = meta_test_s([SMALL], alone, started) - meta_test_s([SMALL], TEST, started)
    assert more_s > (TEST.tasks - 1) * (COSTS.start_s + 1.0)


def test_an_isolated_task_leaves_time_for_the_starts_of_the_later_ones() -> None:
    budget = TimeBudget.of(100, FakeClock())
    usual = MetaTestSchedule.of(TEST, budget, print, start_s=3.0)
    alone = MetaTestSchedule.of(replace(TEST, isolated=True), budget, print, start_s=3.0)
    assert usual.left_s() - alone.left_s() > 3.0 * (TEST.tasks - 1)
    assert (usual.loads_left, alone.loads_left) == (1, TEST.tasks)
    alone.expect(1, 10)
    assert alone.left_s() == usual.left_s()
