"""The budget of 60 s that `docs/architecture.md` works through the time policy, number by number, is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autometa.backbones import View
from autometa.core.settings import Settings
from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.planning.plan import Costs, make_plan, meta_test_s
from autometa.planning.saving import SavingCosts
from autometa.search.opening import OTHER_SIZES

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
ROW = re.compile(
    r"^\| (?P<label>[^|]+) \|[^|]*\| (?P<value>[\d.,]+) ?(?P<unit>s|images|folds|episodes)? \|$", re.M
)

BUDGET_S, START_S, POOL_S, PROBE_S = 60.0, 5.0, 2.0, 3.0
BACKBONES = 3
NEW_BYTES = 40e6
VIEW, IMAGE_S = View("tf_efficientnet_lite0", 128), 1 / 300
SPEC = EpisodeSpec(ways=(2, 20), shots=(1, 10), queries_per_class=5)
TEST = TestSpec(tasks=40, episodes=SPEC, images=800, protocol="within-domain", standby=True)


def worked() -> dict[str, float]:
    """Every number of the example, computed by the code that a run uses."""
    costs = Costs(START_S, {VIEW: IMAGE_S}, save_s=SavingCosts().seconds(NEW_BYTES))
    before_probe_s = BUDGET_S - START_S - POOL_S
    left_s = before_probe_s - PROBE_S
    plan = make_plan(left_s, [VIEW], TEST, costs)
    more = TestSpec(2 * TEST.tasks, SPEC, 2 * TEST.images, "within-domain", standby=True)
    assert meta_test_s([VIEW], more, costs) > plan.meta_test_s
    spare_s, folds = 15.0, POLICY.folds(plan.search_s)
    several_s = OTHER_SIZES * POLICY.slowdown * BACKBONES * IMAGE_S
    return {
        "start of Python, imports": START_S,
        "bootstrap and pool": POOL_S,
        "no further backbone is measured after": POLICY.probe_share * before_probe_s,
        "three backbones measured": PROBE_S,
        "left for all that follows": left_s,
        "reserved for meta-test": plan.meta_test_s,
        "reserved to finish": costs.finish_s,
        "to search": plan.search_s,
        "images to learn from, at most": int(POLICY.embed_share * plan.search_s / several_s),
        "folds of their classes": folds,
        "episodes of each fold": Settings().validation_episodes // folds,
        "embedding 1,000 images in a view, as predicted": POLICY.slowdown * 1000 * IMAGE_S,
        "between two learners saved while searching, at least": POLICY.save_every_s,
        "training by classification, with 15 s to spare": POLICY.tuning_s(spare_s),
        "training by a learner, with 15 s to spare": POLICY.family_s(spare_s),
        "choosing weights": POLICY.ensemble_s,
        "saving": costs.save_s,
        "between the last answer and the end": POLICY.closing_s,
    }


def test_the_worked_example_is_true() -> None:
    section = PAGE.read_text(encoding="utf-8").split("## Where 60 seconds go")[1].split("\n## ")[0]
    told = {match["label"].strip(): float(match["value"].replace(",", "")) for match in ROW.finditer(section)}
    computed = worked()
    assert told.keys() == computed.keys()
    for label, value in computed.items():
        assert told[label] == pytest.approx(value, abs=0.051), label


def test_the_example_says_what_it_takes_for_granted() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for fact in (
        "300 images a second",
        "40 tasks",
        "800 distinct images",
        "2 to 20 ways",
        "1 to 10 shots",
        "40 MB",
    ):
        assert fact in page
