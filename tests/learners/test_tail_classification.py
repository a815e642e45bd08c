"""Tuning the last stages of a backbone, and what becomes of the tuned copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.backbones import TUNED, View
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import TimeBudget
from autometa.core.errors import BudgetExhausted, WeightsError
from autometa.evaluation.member import plain_member
from autometa.learners.encoder import EncoderSpec, build_encoder
from autometa.learners.prepared import PreparedImages
from autometa.learners.tail_classification import TunedBackbone, _TailTraining, tune_tail
from autometa.model.fitted_learner import FittedLearner

POOL = colour_pool(classes=8)


def tuned(backbone: str, seconds: float = 60.0, steps: int = 40) -> TunedBackbone:
    torch.manual_seed(0)
    encoder: Any = build_encoder(EncoderSpec(network=backbone, px=32, trainable=2))
    labels = torch.from_numpy(POOL.labels)
    return tune_tail(encoder, PreparedImages(POOL.images), labels, TimeBudget.of(seconds), steps)


def apart(shelf: BackboneShelf, backbone: str, variant: str = "") -> float:
    """How much nearer, by cosine, images are to the mean of their class than to the nearest other one."""
    features = torch.nn.functional.normalize(shelf(backbone, variant).embed(POOL.images, 32), dim=1)
    labels = torch.from_numpy(POOL.labels)
    means = torch.stack([features[labels == c].mean(0) for c in range(POOL.classes)])
    cosines = features @ torch.nn.functional.normalize(means, dim=1).T
    own = torch.nn.functional.one_hot(labels, POOL.classes).bool()
    return float((cosines[own] - cosines.masked_fill(own, -1.0).amax(1)).mean())


@pytest.mark.medium
def test_tuning_tells_the_classes_apart_and_leaves_the_trunk(tiny_backbone: str) -> None:
    result = tuned(tiny_backbone)
    assert result.steps == 40 and result.train_s > 0
    shelf = BackboneShelf("cpu")
    shelf.adopt(tiny_backbone, TUNED, result.state, 32)
    assert apart(shelf, tiny_backbone, TUNED) > apart(shelf, tiny_backbone)
    before = shelf.state(tiny_backbone)
    changed = {key for key, value in result.state.items() if not torch.equal(value, before[key])}
    assert changed and not any(key.startswith(("conv_stem", "bn1", "blocks.0")) for key in changed)


def test_a_step_becomes_smaller_where_memory_runs_out(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, accumulate, tried = tuned(tiny_backbone, steps=3), _TailTraining._accumulate, list[int]()

    def short(self: Any, batch: Any, part: slice) -> float:
        tried.append(part.stop - part.start)
        loss = accumulate(self, batch, part)
        if tried[-1] > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss

    monkeypatch.setattr(_TailTraining, "_accumulate", short)
    parts = tuned(tiny_backbone, steps=3)
    assert tried[:3] == [64, 32, 16] and set(tried[3:]) == {16}
    for name, tensor in whole.state.items():
        torch.testing.assert_close(parts.state[name], tensor, atol=1e-4, rtol=1e-3)


def test_too_little_time_is_no_training(tiny_backbone: str) -> None:
    with pytest.raises(BudgetExhausted):
        tuned(tiny_backbone, seconds=0.0)


@pytest.mark.medium
def test_a_tuned_copy_is_saved_with_the_learner(tiny_backbone: str, tmp_path: Path) -> None:
    shelf = BackboneShelf("cpu")
    shelf.adopt(tiny_backbone, TUNED, tuned(tiny_backbone).state, 32)
    view = View(tiny_backbone, 32, variant=TUNED)
    FittedLearner((plain_member(view),), shelf).save(tmp_path)
    loaded = FittedLearner.load(tmp_path)
    assert loaded.views == [view]
    torch.testing.assert_close(
        loaded.shelf(tiny_backbone, TUNED).embed(POOL.images[:4], 32),
        shelf(tiny_backbone, TUNED).embed(POOL.images[:4], 32),
    )


def test_a_tuned_copy_without_weights_is_an_error(tiny_backbone: str) -> None:
    with pytest.raises(WeightsError, match="weights of a variant"):
        BackboneShelf("cpu")(tiny_backbone, TUNED)


def test_images_of_one_class_can_not_be_told_apart_and_do_no_harm(tiny_backbone: str) -> None:
    encoder: Any = build_encoder(EncoderSpec(network=tiny_backbone, px=32, trainable=1))
    images = POOL.images[POOL.labels == 0]
    result = tune_tail(
        encoder, PreparedImages(images), torch.zeros(len(images), dtype=torch.long), TimeBudget.of(60), 5
    )
    assert result.steps == 5
    assert all(value.isfinite().all() for value in result.state.values())
    assert np.isfinite(result.prepare_s)
