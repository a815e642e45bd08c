"""Plans: meta-test is reserved by its cost, and the search gets what remains."""

from __future__ import annotations

from autometa.backbones import View
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
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
