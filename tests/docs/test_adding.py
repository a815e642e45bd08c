"""The code of `docs/adding.md` does what the page says: it is run as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from synthetic import colour_pool

from autometa import FittedLearner, load_learner
from autometa.backbones import CATALOGUE, Backbone, BackboneSpec
from autometa.backbones.architecture import create_model
from autometa.backbones.engines import ENGINES, disagreement
from autometa.data.episodes import EpisodeSpec
from autometa.heads import HEADS, FeatureBatch, apply_head
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import EpisodeSampler, PoolSource
from autometa.learners.recipe import LEARNERS, Recipe, build_learner

PAGE = Path(__file__).parents[2] / "docs" / "adding.md"
TABLES: tuple[dict[str, Any], ...] = (HEADS, LEARNERS, CATALOGUE, ENGINES)


def blocks() -> dict[str, list[str]]:
    """The Python of the page, by the heading above it."""
    found: dict[str, list[str]] = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        code = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        found[section.partition("\n")[0]] = code
    return found


def run(code: str) -> dict[str, Any]:
    """What a block leaves behind."""
    names: dict[str, Any] = {"__name__": "adding", "__file__": str(PAGE)}
    exec(compile(code, PAGE.name, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _tables() -> Iterator[None]:
    """Rows that the page adds go again."""
    before = [dict(table) for table in TABLES]
    yield
    for table, rows in zip(TABLES, before, strict=True):
        table.clear()
        table.update(rows)


def test_a_head_answers_and_masks_what_is_not_there() -> None:
    run(blocks()["A head"][0])
    features = torch.eye(4)[None]
    support, labels = features[:, [0, 1, 2, 0]], torch.tensor([[0, 1, 1, -1]])
    batch = FeatureBatch(support, labels, features[:, [2, 0]], torch.tensor([2]))
    scores = apply_head("nearest_image", {"sharpness": 20.0}, batch)
    assert scores.tolist() == [[[0.0, 20.0], [20.0, 0.0]]]
    two = FeatureBatch(
        support.repeat(2, 1, 1),
        torch.tensor([[0, 1, 1, -1], [0, 1, 2, -1]]),
        batch.query.repeat(2, 1, 1),
        torch.tensor([2, 3]),
    )
    assert apply_head("nearest_image", {"sharpness": 20.0}, two)[0, :, 2].isinf().all()


def test_a_learner_with_the_head_is_saved_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_backbone: str
) -> None:
    monkeypatch.chdir(tmp_path)
    head, use = blocks()["A head"]
    run(head)
    run(use.replace("tf_efficientnet_lite0", tiny_backbone))
    loaded = load_learner(tmp_path / "my-learner")
    assert isinstance(loaded, FittedLearner)
    assert loaded.members[0].head == "nearest_image"


@pytest.mark.medium
def test_a_learner_is_built_from_its_row_and_learns() -> None:
    run(blocks()["A learner"][0])
    torch.manual_seed(0)
    encoder = EncoderSpec(network="conv4", px=16, channels=8)
    learner = build_learner(Recipe(learner="city_blocks", encoder=encoder))
    pool = colour_pool(px=16)
    spec = EpisodeSpec((5, 5), (2, 2), queries_per_class=3)
    sampler = EpisodeSampler(pool, np.arange(12), spec, np.random.default_rng(0))
    batch = PoolSource(torch.from_numpy(pool.images), sampler).draw(4)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        losses.append(learner.accumulate(batch))
        optimizer.step()
    assert losses[-1] < losses[0]


def test_the_bundle_of_the_page_is_like_those_that_come_along() -> None:
    ours = blocks()["A learner"][1]
    theirs = (PAGE.parents[1] / "baselines" / "prototypical" / "model.py").read_text(encoding="utf-8")
    recipe = re.compile(r"    recipe = Recipe\(.*?^$", re.MULTILINE | re.DOTALL)
    assert recipe.sub("", ours).split() == recipe.sub("", theirs.partition('"""\n')[2]).split()


@pytest.mark.medium
def test_a_row_of_the_catalogue_says_the_truth_about_its_network() -> None:
    run(blocks()["A backbone"][0])
    spec = CATALOGUE["resnet34.a1_in1k"]
    with torch.device("meta"):
        network = timm.create_model(spec.timm_name, num_classes=0)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters / 1e6 == pytest.approx(spec.parameters_m, abs=0.05)


def test_an_engine_agrees_with_eager() -> None:
    run(blocks()["An engine"][0])
    spec = BackboneSpec("test_resnet", "test_resnet", 0.5, 32, "none")
    torch.manual_seed(0)
    network = Backbone(spec, create_model(spec), "cpu").network
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    ours = ENGINES["plain"].build(network, 32, "cpu")(images)
    eager = ENGINES["eager"].build(network, 32, "cpu")(images)
    assert disagreement(eager, ours, [ours.shape[1]]) < 1e-5
