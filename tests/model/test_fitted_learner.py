"""Features, learners, artefacts on a tiny network."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import FakeClock, colour_pool

from autometa.backbones import View, build_backbone
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.errors import ArtifactError, BudgetExhausted, DataError
from autometa.data.images import hash_images
from autometa.evaluation.member import Member
from autometa.evaluation.mixing import ShotTemperature
from autometa.heads import METRICS, Metric
from autometa.model.artifact import load_description
from autometa.model.fitted_learner import FittedLearner

MEMORY = MemoryBudget(8 * 2**30)


class CountingShelf(BackboneShelf):
    """Counts the images that its networks embed."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.embedded: list[int] = []

    def __call__(self, name: str, variant: str = ""):  # type: ignore[no-untyped-def]
        backbone = super().__call__(name, variant)
        original = type(backbone).embed_layers

        def counting(images, px, *, flip):  # type: ignore[no-untyped-def]
            self.embedded.append(len(images))
            return original(backbone, images, px, flip=flip)

        backbone.embed_layers = counting  # type: ignore[assignment]
        return backbone


def test_every_image_is_embedded_once_per_view(tiny_backbone: str) -> None:
    pool = colour_pool(px=32)
    shelf = CountingShelf()
    store = FeatureStore(shelf, MEMORY)
    view = View(tiny_backbone, 32)
    images = pool.images[[0, 1, 0, 2]]
    first = store.embed(view, images, hash_images(images))
    assert shelf.embedded == [3]
    assert torch.equal(first[0], first[2])
    again = store.embed(view, images[::-1].copy(), hash_images(images[::-1]))
    assert shelf.embedded == [3]
    assert torch.equal(again, first.flip(0))
    assert store.missing(View(tiny_backbone, 48), hash_images(images)) == 3
    assert (store.seconds_per_image(view) or 0) > 0


def test_embedding_stops_with_its_budget_and_keeps_what_is_done(tiny_backbone: str) -> None:
    pool = colour_pool(px=32)
    clock = FakeClock()
    budget = TimeBudget.of(1, clock)
    shelf = BackboneShelf("cpu")
    network = shelf(tiny_backbone)
    embed = network.embed_layers

    def slow(images, px, *, flip):  # type: ignore[no-untyped-def]
        clock.now += 0.7
        return embed(images, px, flip=flip)

    network.embed_layers = slow  # type: ignore[assignment]
    store = FeatureStore(shelf, MEMORY)
    view = View(tiny_backbone, 32)
    keys = list(range(len(pool.images)))
    with pytest.raises(BudgetExhausted):
        store.embed(view, pool.images, keys, budget)
    assert store.missing(view, keys) == len(keys) - 128


def test_resolution_follows_the_architecture(tiny_backbone: str) -> None:
    backbone = build_backbone(tiny_backbone, "cpu")
    features = backbone.embed(np.zeros((2, 3, 20, 20), np.uint8), 48)
    assert features.shape == (2, backbone.features)
    assert features.dtype == torch.float32


def learner_of(*members: Member) -> FittedLearner:
    shelf = BackboneShelf("cpu")
    views = {View(m.backbone, m.px) for m in members}
    centred = METRICS["cl2n"]
    metrics = {(v, "cl2n"): Metric(centred, mean=torch.zeros(shelf(v.backbone).features)) for v in views}
    return FittedLearner(members, shelf, metrics)


@pytest.fixture
def members(tiny_backbone: str) -> tuple[Member, ...]:
    centroid = {"transform": "none", "metric": "euclidean"}
    return (
        Member(backbone=tiny_backbone, px=32, head="centroid", params=centroid, weight=2),
        Member(backbone=tiny_backbone, px=48, head="ridge", params={"transform": "cl2n", "strength": 1.0}),
    )


def answer(learner: FittedLearner) -> np.ndarray:
    pool = colour_pool()
    support = np.concatenate([pool.rows_of_class[c][:4] for c in range(3)])
    query = np.concatenate([pool.rows_of_class[c][4:8] for c in range(3)])
    predictor = learner.fit(pool.images[support], np.repeat(np.arange(3), 4), 3)
    return predictor.predict(pool.images[query])


def test_a_learner_answers_with_probabilities(members: tuple[Member, ...]) -> None:
    p = answer(learner_of(*members))
    np.testing.assert_allclose(p.sum(1), 1)
    assert (p.argmax(1) == np.repeat(np.arange(3), 4)).mean() > 0.8


def test_a_learner_survives_saving(members: tuple[Member, ...], tmp_path: Path) -> None:
    learner = learner_of(*members)
    learner.validation = {"normalised_accuracy": 0.5}
    learner.temperature = ShotTemperature(0.7, -0.1)
    learner.save(tmp_path)
    again = FittedLearner.load(tmp_path)
    np.testing.assert_allclose(answer(again), answer(learner), rtol=1e-4, atol=1e-6)
    assert again.validation == learner.validation
    suffixes = {file.suffix for file in tmp_path.iterdir()}
    assert suffixes == {".json", ".safetensors"}
    learner.save(tmp_path)
    assert len(list(tmp_path.glob("backbone-*"))) == 1
    (tmp_path / "statistics-00.safetensors").write_bytes(b"of an earlier state")
    (tmp_path / "backbone-old-00.safetensors").write_bytes(b"of an earlier state")
    learner.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "learner.json",
        *load_description(tmp_path).backbones.values(),
        load_description(tmp_path).statistics,
    }


def test_an_ensemble_answers_at_the_temperature_of_its_shots(members: tuple[Member, ...]) -> None:
    learner = learner_of(*members)
    before = answer(learner)
    learner.temperature = ShotTemperature(0.7, -0.1)
    softened = before ** (1 / np.exp(0.7 - 0.1 * np.log(4)))  # four images of each class
    np.testing.assert_allclose(answer(learner), softened / softened.sum(1, keepdims=True), rtol=1e-4)


def test_a_kill_while_saving_leaves_the_old_learner(
    members: tuple[Member, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner_of(members[0]).save(tmp_path)
    before = load_description(tmp_path)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        learner_of(*members).save(tmp_path)
    monkeypatch.undo()
    assert load_description(tmp_path) == before


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f: (f / "learner.json").unlink(), "no saved learner"),
        (lambda f: (f / "learner.json").write_text("{}"), "damaged"),
        (lambda f: next(f.glob("backbone-*")).write_bytes(b"x"), "missing or damaged"),
        (lambda f: next(f.glob("backbone-*")).unlink(), "missing or damaged"),
    ],
)
def test_damaged_artefacts_are_named(members: tuple[Member, ...], tmp_path: Path, damage, named: str) -> None:  # type: ignore[no-untyped-def]
    learner_of(*members).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ArtifactError, match=named):
        FittedLearner.load(tmp_path)


def test_artefacts_name_no_file_elsewhere(members: tuple[Member, ...], tmp_path: Path) -> None:
    learner_of(*members).save(tmp_path)
    content = json.loads((tmp_path / "learner.json").read_text())
    content.pop("checksum")
    content["backbones"] = dict.fromkeys(content["backbones"], f"..{os.sep}secret")
    (tmp_path / "learner.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="not a file name"):
        FittedLearner.load(tmp_path)


def test_support_must_cover_every_class(members: tuple[Member, ...]) -> None:
    learner = learner_of(members[0])
    images = colour_pool().images[:3]
    with pytest.raises(DataError, match="each of 3 classes"):
        learner.fit(images, np.array([0, 0, 1]), 3)
