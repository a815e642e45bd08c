"""A learner with learned metrics survives saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autometa.backbones import View
from autometa.backbones.shelf import BackboneShelf
from autometa.evaluation.member import Member
from autometa.heads import METRICS, FeatureStatistics
from autometa.model.fitted_learner import FittedLearner

VIEW = View("tf_efficientnet_lite0", 32)
HEADS = {"ot_map": "root_white", "plda": "root_lda", "centroid": "l2"}


@pytest.mark.medium
def test_metrics_are_saved_with_the_learner(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    statistics = FeatureStatistics(torch.rand(40, 1280), torch.arange(8).repeat_interleave(5))
    parameters = {"ot_map": {"sharpness": 10.0}, "plda": {"between_shrinkage": 0.5}, "centroid": {}}
    members = tuple(
        Member(backbone=VIEW.backbone, px=VIEW.px, head=head, params={"transform": name} | parameters[head])
        for head, name in HEADS.items()
    )
    metrics = {(VIEW, name): statistics.fit(METRICS[name]) for name in HEADS.values()}
    learner = FittedLearner(members, BackboneShelf("cpu"), metrics, balanced=True)
    learner.save(tmp_path)
    again = FittedLearner.load(tmp_path)
    assert again.balanced
    images = rng.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(6) % 3
    ours, theirs = (each.fit(images[:6], labels, 3).predict(images[6:]) for each in (learner, again))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    np.testing.assert_allclose(ours.sum(1), 1)
