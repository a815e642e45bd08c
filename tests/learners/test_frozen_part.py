"""The frozen part of a learner runs on an engine, in training and, after saving, in a process that answers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.backbones import EAGER
from autometa.backbones.engines import ENGINES, EngineSpec
from autometa.backbones.engines.eager import Eager
from autometa.backbones.network import PixelNetwork
from autometa.core.budget import UNLIMITED
from autometa.core.errors import ConfigError
from autometa.data.episodes import EpisodeSpec
from autometa.learners.encoder import EncoderSpec, build_encoder
from autometa.learners.prepared import PreparedImages
from autometa.learners.recipe import Recipe
from autometa.learners.trained import TrainedLearner
from autometa.learners.training_run import build_untrained, choose_engine, measure_costs

PX = 32
POOL = colour_pool(classes=4)
SPEC = EpisodeSpec((2, 3), (1, 2), 2)
SIZES = list[int]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> SIZES:
    """Sizes for which the engine `fake` was built, which counts as the fastest."""
    sizes: SIZES = []

    def build(network: PixelNetwork, px: int, device: str) -> Eager:
        sizes.append(px)
        return Eager(network, device)

    monkeypatch.setitem(ENGINES, "fake", EngineSpec("fake", build, build_s=0.0, speedup=1e9))
    return sizes


def learner_on(network: str, trainable: int) -> TrainedLearner:
    """A learner whose frozen part is to run on `fake`."""
    encoder = EncoderSpec(network=network, px=PX, trainable=trainable)
    fitted = build_untrained(Recipe(learner="prototypical", encoder=encoder), SPEC)
    assert fitted.learner.encoder.frozen is not None
    fitted.learner.encoder.frozen.backbone.prefer("fake", PX)
    return fitted


@pytest.mark.parametrize("trainable", [0, 2])
def test_an_engine_gives_what_the_network_gives(tiny_backbone: str, built: SIZES, trainable: int) -> None:
    fitted = learner_on(tiny_backbone, trainable)
    lines: list[str] = []
    expected = fitted.learner.encoder.prepare(POOL.images[:5])
    assert not built, "engines are only built where one was chosen"
    choose_engine(fitted, POOL.images, 1000, UNLIMITED, lines.append)
    assert built == [PX] and lines[0].startswith(f"engine for {tiny_backbone}@{PX}: fake")
    torch.testing.assert_close(fitted.learner.encoder.prepare(POOL.images[:5]), expected)


def test_a_saved_learner_answers_on_its_engine(tiny_backbone: str, built: SIZES, tmp_path: Path) -> None:
    fitted = learner_on(tiny_backbone, 2)
    choose_engine(fitted, POOL.images, 1000, UNLIMITED, lambda _: None)
    fitted.save(tmp_path)
    built.clear()
    again = TrainedLearner.load(tmp_path)
    labels = np.repeat([0, 1], 3)
    asked = POOL.images[20:26]
    ours, theirs = (one.fit(POOL.images[:6], labels, 2).predict(asked) for one in (fitted, again))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert built == [PX], "once, with the first images"


def test_learners_without_an_engine_run_in_pytorch(tiny_backbone: str, built: SIZES, tmp_path: Path) -> None:
    learner_on(tiny_backbone, 2).save(tmp_path)
    again = TrainedLearner.load(tmp_path)
    again.prepare(POOL.images[:3])
    frozen = again.learner.encoder.frozen
    assert frozen is not None and (frozen.engine, frozen.build_s, built) == (None, 0.0, [])


def test_building_the_engine_is_part_of_loading(tiny_backbone: str, built: SIZES) -> None:
    fitted = learner_on(tiny_backbone, 2)
    choose_engine(fitted, POOL.images, 1000, UNLIMITED, lambda _: None)
    frozen = fitted.learner.encoder.frozen
    assert frozen is not None and frozen.build_s > 0
    costs = measure_costs(fitted, PreparedImages(POOL.images[:8]), SPEC)
    assert costs.load_s == fitted.load_s + frozen.build_s


def test_few_images_are_not_worth_an_engine(tiny_backbone: str) -> None:
    encoder = EncoderSpec(network=tiny_backbone, px=PX, trainable=2)
    fitted = build_untrained(Recipe(encoder=encoder), SPEC)
    choose_engine(fitted, POOL.images, 1, UNLIMITED, lambda _: None)
    assert fitted.learner.encoder.frozen is not None
    assert fitted.learner.encoder.frozen.engine == EAGER


@pytest.mark.parametrize("spec", [{"network": "conv4"}, {"trainable": "all"}, {"maps": True}])
def test_encoders_without_a_part_for_engines_have_none_to_choose(
    tiny_backbone: str, spec: dict[str, Any]
) -> None:
    fitted = build_untrained(
        Recipe(encoder=EncoderSpec.model_validate({"network": tiny_backbone, "px": PX, **spec})), SPEC
    )
    choose_engine(fitted, POOL.images, 1000, UNLIMITED, lambda _: None)
    assert fitted.learner.encoder.frozen is None


def test_copies_of_an_encoder_share_its_frozen_part(tiny_backbone: str) -> None:
    encoder = build_encoder(EncoderSpec(network=tiny_backbone, px=PX, trainable=1))
    assert copy.deepcopy(encoder).frozen is encoder.frozen
    with pytest.raises(ConfigError, match="stages"):
        build_encoder(EncoderSpec(network=tiny_backbone, px=PX, trainable=99))
