"""The learner that a run would serve with: what replaces what, and what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from synthetic import colour_pool

from autometa.backbones import View
from autometa.backbones.shelf import BackboneShelf
from autometa.core.files import DESCRIPTION
from autometa.evaluation.estimate import Estimate
from autometa.evaluation.member import plain_member
from autometa.heads import Metric, find_metric
from autometa.model.fitted_learner import FittedLearner
from autometa.model.inputs import list_inputs
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.model.portfolio_description import WeightedMode
from autometa.search.incumbent import Incumbent, Stage

POOL = colour_pool()
STAGES: tuple[Stage, ...] = get_args(Stage)


def portfolio(backbone: str, px: int = 32) -> Portfolio:
    view = View(backbone, px)
    metrics = {key: Metric(find_metric("root_l2")) for key in list_inputs([view], ("root_l2", False))}
    return Portfolio((view,), (WeightedMode(name="unfitted"),), BackboneShelf("cpu"), metrics)


def plain(backbone: str) -> FittedLearner:
    return FittedLearner((plain_member(View(backbone, 32)),), BackboneShelf("cpu"), {})


def estimate(accuracy: float | None) -> Estimate | None:
    return None if accuracy is None else Estimate(accuracy, accuracy - 0.1, accuracy + 0.1)


def answers(learner: FittedLearner | Portfolio) -> bool:
    rows = np.concatenate([POOL.rows_of_class[c][:2] for c in range(3)])
    answer = learner.fit(POOL.images[rows], np.arange(3).repeat(2), 3).predict(POOL.images[rows])
    return answer.shape == (6, 3)


def after_a_run(folder: Path, backbone: str, stage: Stage, accuracy: float | None = None) -> Incumbent:
    """An incumbent that has resumed what an earlier run has left."""
    Incumbent(folder, lambda _: None).offer(portfolio(backbone), estimate(accuracy), stage)
    incumbent = Incumbent(folder, lambda _: None)
    assert incumbent.resume() is incumbent.latest is not None
    return incumbent


@pytest.mark.medium
def test_within_a_run_the_last_one_counts(tmp_path: Path, tiny_backbone: str) -> None:
    lines: list[str] = []
    incumbent = Incumbent(tmp_path, lines.append)
    assert incumbent.offer(plain(tiny_backbone), None, "bootstrap")
    assert isinstance(load_learner(tmp_path), FittedLearner)
    offers: list[tuple[Stage, float | None]] = [
        ("default", None), ("search", None), ("final", 0.4), ("final", 0.3)
    ]  # fmt: skip
    for stage, accuracy in offers:
        assert incumbent.offer(portfolio(tiny_backbone), estimate(accuracy), stage)
    saved = load_learner(tmp_path)
    assert isinstance(saved, Portfolio) and answers(saved)
    assert saved.validation["stage"] == "final"
    assert saved.validation["normalised_accuracy"] == 0.3
    assert saved.validation["interval"] == pytest.approx([0.2, 0.4])
    assert saved.validation["ci95"] == pytest.approx(0.1)
    assert len(lines) == 5 and all("learner on disk" in line for line in lines)


@pytest.mark.parametrize("earlier", STAGES[1:])
@pytest.mark.parametrize("stage", STAGES)
def test_one_of_an_earlier_run_stays_until_this_run_has_come_as_far(
    tmp_path: Path, tiny_backbone: str, earlier: Stage, stage: Stage
) -> None:
    incumbent = after_a_run(tmp_path, tiny_backbone, earlier)
    old, new = incumbent.latest, portfolio(tiny_backbone, 48)
    replaces = STAGES.index(stage) >= STAGES.index(earlier)
    assert incumbent.offer(new, None, stage) is replaces
    assert incumbent.latest is (new if replaces else old)
    saved = load_learner(tmp_path)
    assert isinstance(saved, Portfolio)
    assert saved.views[0].px == (48 if replaces else 32)
    assert saved.validation["stage"] == (stage if replaces else earlier)


@pytest.mark.parametrize(
    ("before", "now", "replaces"),
    [(0.5, 0.6, True), (0.5, 0.5, True), (0.5, 0.4, False), (None, 0.1, True), (0.9, None, True)],
)
def test_of_two_that_have_come_as_far_the_better_one_counts(
    tmp_path: Path, tiny_backbone: str, before: float | None, now: float | None, replaces: bool
) -> None:
    incumbent = after_a_run(tmp_path, tiny_backbone, "final", before)
    assert incumbent.offer(portfolio(tiny_backbone, 48), estimate(now), "final") is replaces


def test_once_replaced_the_earlier_run_does_not_matter(tmp_path: Path, tiny_backbone: str) -> None:
    incumbent = after_a_run(tmp_path, tiny_backbone, "default")
    assert incumbent.offer(portfolio(tiny_backbone), estimate(0.9), "final")
    assert incumbent.offer(portfolio(tiny_backbone), estimate(0.1), "final")


def test_a_bootstrap_or_a_damaged_learner_is_not_resumed(tmp_path: Path, tiny_backbone: str) -> None:
    lines: list[str] = []
    assert Incumbent(tmp_path, lines.append).resume() is None
    Incumbent(tmp_path, lines.append).offer(plain(tiny_backbone), None, "bootstrap")
    assert Incumbent(tmp_path, lines.append).resume() is None
    (tmp_path / DESCRIPTION).write_text('{"format": "autometa-portfolio-1", "views": ["tiny@32"]}')
    assert Incumbent(tmp_path, lines.append).resume() is None
    assert any("cannot be used" in line for line in lines)


def test_without_a_folder_the_latest_is_kept(tiny_backbone: str) -> None:
    incumbent = Incumbent(None, lambda _: None)
    assert incumbent.resume() is None and not incumbent.is_due(0.0)
    learner = plain(tiny_backbone)
    assert incumbent.offer(learner, None, "bootstrap") and incumbent.latest is learner
