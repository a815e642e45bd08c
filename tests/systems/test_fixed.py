"""The fixed recipe: which views it has time for, and that a valid learner is there whatever happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import colour_pool

from autometa.backbones import CATALOGUE, BackboneSpec, View
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.errors import BudgetExhausted
from autometa.core.settings import Settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.heads.modes import SIX_MODES
from autometa.model.fitted_learner import FittedLearner
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.systems import fixed
from autometa.systems.fixed import FixedSystem, SixModesSystem

pytestmark = pytest.mark.usefixtures("eager_only")

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
TEST = TestSpec(tasks=20, episodes=SPEC, images=100, protocol="within-domain")
POOL = colour_pool(classes=16)


def system(
    folder: Path, backbone: str, seconds: float = 120.0, make: Any = FixedSystem
) -> tuple[FixedSystem, list[str]]:
    lines: list[str] = []
    budget = TimeBudget.of(seconds)
    limits = Limits(budget, budget, MemoryBudget(8 * 2**30))
    further = (View("tf_efficientnet_b9", 32), View(backbone, 48))
    run = make(TEST, limits, folder, lines.append, start_s=1.0, view=View(backbone, 32), further=further)
    return run, lines


def accuracy(learner: Any) -> float:
    support = np.concatenate([POOL.rows_of_class[c][:4] for c in range(3)])
    query = np.concatenate([POOL.rows_of_class[c][4:8] for c in range(3)])
    answer = learner.fit(POOL.images[support], np.arange(3).repeat(4), 3).predict(POOL.images[query])
    return float((answer.argmax(1) == np.arange(3).repeat(4)).mean())


@pytest.mark.medium
@pytest.mark.parametrize(("make", "modes"), [(FixedSystem, ("transport",)), (SixModesSystem, SIX_MODES)])
def test_it_answers_with_all_views_that_are_there(
    tmp_path: Path, tiny_backbone: str, make: Any, modes: tuple[str, ...]
) -> None:
    run, lines = system(tmp_path, tiny_backbone, make=make)
    learner = run.run(POOL)
    saved = load_learner(tmp_path)
    assert isinstance(saved, Portfolio) and isinstance(learner, Portfolio)
    assert saved.views == learner.views == (View(tiny_backbone, 32), View(tiny_backbone, 48))
    assert tuple(mode.name for mode in saved.modes) == modes
    assert saved.validation["stage"] == "final"
    assert any(line.startswith("left out:") and "tf_efficientnet_b9" in line for line in lines)
    assert accuracy(saved) > 0.8


def test_the_bootstrap_is_a_valid_learner_and_stays_without_time(tmp_path: Path, tiny_backbone: str) -> None:
    run, lines = system(tmp_path, tiny_backbone, seconds=0.5)
    run.bootstrap()
    assert isinstance(load_learner(tmp_path), FittedLearner)
    assert accuracy(run.run(POOL)) > 1 / 3
    assert any("stopped early" in line for line in lines)


def test_a_view_that_does_not_fit_is_left_out(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = system(tmp_path, tiny_backbone)
    monkeypatch.setattr(FixedSystem, "_fits", lambda *_: False)
    learner = run.run(POOL)
    assert isinstance(learner, Portfolio) and learner.views == (View(tiny_backbone, 32),)
    assert learner.validation["stage"] == "first view"


def test_time_that_ends_in_the_second_view_leaves_the_first(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = system(tmp_path, tiny_backbone)
    embed = run._store.embed

    def late(view: View, *rest: Any) -> Any:
        if view.px == 48:
            raise BudgetExhausted("late")
        return embed(view, *rest)

    monkeypatch.setattr(run._store, "embed", late)
    run.run(POOL)
    saved = load_learner(tmp_path)
    assert isinstance(saved, Portfolio) and len(saved.views) == 1
    assert any("@48 is left out: late" in line for line in lines)


def test_a_backbone_is_not_measured_in_the_time_of_meta_test(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = system(tmp_path, tiny_backbone)
    monkeypatch.setitem(CATALOGUE, "tiny2", BackboneSpec("tiny2", "test_efficientnet", 0.5, 64, "none"))
    run.further = (View("tiny2", 32), View(tiny_backbone, 48))
    monkeypatch.setattr(run._forecast, "predict_image_s", lambda *_: 10.0)
    learner = run.run(POOL)
    assert isinstance(learner, Portfolio)
    assert learner.views == (View(tiny_backbone, 32), View(tiny_backbone, 48))
    assert "no time to measure tiny2@32" in lines and run._forecast.probed == [tiny_backbone]


def test_a_view_that_fails_costs_no_other_view(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = system(tmp_path, tiny_backbone)
    run.further = (View(tiny_backbone, 48), View(tiny_backbone, 40))
    fit = run._fit_metrics

    def fail_at_48(pool: Any, rows: Any, view: View, *used: Any) -> None:
        if view.px == 48:
            raise BudgetExhausted("late")
        fit(pool, rows, view, *used)

    monkeypatch.setattr(run, "_fit_metrics", fail_at_48)
    learner = run.run(POOL)
    assert isinstance(learner, Portfolio)
    assert learner.views == (View(tiny_backbone, 32), View(tiny_backbone, 40))


def test_a_rival_has_all_views_that_the_search_could_buy(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = [spec for spec in CATALOGUE.values() if spec.packaged]  # as with the extra `weights`
    monkeypatch.setattr(fixed, "installed_backbones", lambda: packaged)
    found = fixed.make_all_views_system(TEST, Limits(TimeBudget.of(9), TimeBudget.of(9), MemoryBudget(2**33)))
    assert found.modes == SIX_MODES
    assert found.further[: len(fixed.FURTHER)] == fixed.FURTHER
    views = {found.view, *found.further}
    assert len(views) == len(found.further) + 1
    resolutions = [px for px in Settings().resolutions if px >= found.view.px]
    assert views == {View(spec.name, px) for spec in packaged for px in resolutions if px <= spec.native_px}


def test_images_that_no_metric_can_be_fitted_to_leave_the_bootstrap(
    tmp_path: Path, tiny_backbone: str
) -> None:
    run, lines = system(tmp_path, tiny_backbone)
    learner = run.run(colour_pool(classes=4, per_class=1, datasets=1))
    assert isinstance(learner, FittedLearner)
    assert any("cannot be fitted" in line or "no episode can be drawn" in line for line in lines)


def test_meta_test_is_reserved_with_the_views_so_far_while_a_further_one_embeds(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = system(tmp_path, tiny_backbone)
    spare_s, reserved = run._forecast.spare_s, list[tuple[View, ...]]()

    def listen(views: Any, *others: Any) -> float:
        reserved.append(tuple(views))
        return spare_s(views, *others)

    monkeypatch.setattr(run._forecast, "spare_s", listen)
    run.run(POOL)
    first, second = View(tiny_backbone, 32), View(tiny_backbone, 48)
    assert reserved == [(first,), (first, second)]
