"""A whole seeded search on synthetic features and a fake clock asks for the same candidates, in the same order, with
the same results as when its golden journal was recorded; and learners that were saved then still load."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import FakeClock, colour_pool

from autometa.backbones import find_spec, shelf
from autometa.core import budget
from autometa.core.budget import Limits, MemoryBudget, TimeBudget, stopwatch
from autometa.core.settings import Settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.model.fitted_learner import FittedLearner
from autometa.systems.autometa import Controller

GOLDEN = Path(__file__).parents[1] / "golden"
PIXEL_S = 1e-6
WIDTHS = {"last": 12, "stage3": 6, "stage4": 8}
TEST = TestSpec(
    tasks=20,
    episodes=EpisodeSpec(ways=(2, 5), shots=(1, 4), queries_per_class=4),
    images=100,
    protocol="within-domain",
)


class SyntheticBackbone:
    """Random projections of an image's colours with noise of their own; an image costs seconds of the fake clock."""

    def __init__(self, name: str, clock: FakeClock) -> None:
        self.spec, self.clock, self.widths, self.features = find_spec(name), clock, WIDTHS, WIDTHS["last"]
        self.model = torch.nn.Linear(1, 1)
        self.report: Any = None

    def input_px(self, px: int) -> int:
        return px

    def embed(self, images: Any, px: int) -> torch.Tensor:
        return self.embed_layers(images, px)[:, : self.features]

    def embed_layers(self, images: Any, px: int, *, flip: bool = False) -> torch.Tensor:
        self.clock.now += len(images) * (2 if flip else 1) * px**2 * PIXEL_S
        pixels = torch.from_numpy(np.array(images)).float()
        colours = pixels.mean((2, 3)) / 255
        noise = (pixels[:, :, ::5, ::5].flatten(1) / 255 - 0.5) * (48 / px) * (1.6 if flip else 2.0)
        generator = torch.Generator().manual_seed(int(self.spec.parameters_m * 10) + px)
        signal = torch.randn(3, sum(WIDTHS.values()), generator=generator)
        mixing = torch.randn(noise.shape[1], sum(WIDTHS.values()), generator=generator) * 0.3
        return (0.7 * colours @ signal + noise @ mixing).abs()

    def pick(self, output: torch.Tensor, layers: tuple[str, ...]) -> torch.Tensor:
        blocks = dict(zip(WIDTHS, torch.split(output, list(WIDTHS.values()), dim=1), strict=True))
        if len(layers) == 1:
            return blocks[layers[0]].contiguous()
        return torch.cat([torch.nn.functional.normalize(blocks[layer], dim=1) for layer in layers], dim=1)

    def prepare(self, *_: Any, **__: Any) -> None:
        """There is one engine."""

    def expected(self, px: int) -> SimpleNamespace:
        return SimpleNamespace(name="eager", build_s=0.0)

    def engine_name(self, px: int) -> str:
        return "eager"

    def is_ready(self, px: int) -> bool:
        return True

    def prefer(self, engine: str, px: int) -> None:
        """There is one engine."""

    def rest(self) -> None:
        """Nothing to give back."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock of everything that does not name one of its own."""
    fake = FakeClock()
    monkeypatch.setattr(stopwatch, "__defaults__", (fake,))
    monkeypatch.setattr(budget.TimeBudget.__init__, "__defaults__", (fake,))
    monkeypatch.setattr(budget.TimeBudget.of.__func__, "__defaults__", (fake,))  # type: ignore[attr-defined]
    monkeypatch.setattr(
        shelf, "build_backbone", lambda name, device, state=None: SyntheticBackbone(name, fake)
    )
    return fake


def search(folder: Path, seconds: float, max_trials: int) -> list[dict[str, Any]]:
    """What a search journals of its candidates, without what depends on the machine."""
    time = TimeBudget.of(seconds)
    settings = Settings(
        backbones=("tf_efficientnet_lite0", "tf_efficientnet_lite1"),
        resolutions=(32, 48),
        validation_episodes=30,
        max_trials=max_trials,
        tune_steps=0,
        families=(),
    )
    limits = Limits(time, time, MemoryBudget(2**50))
    run = Controller(settings, TEST, limits, folder, lambda _: None, start_s=1.0)
    run.run(colour_pool(classes=16))
    rows = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    kept = ("view", "head", "params", "origin", "status")
    return [
        {name: row[name] for name in kept} | {"accuracy": round(row.get("accuracy", -1.0), 2)}
        for row in rows
        if "head" in row
    ]


@pytest.mark.usefixtures("clock")
def test_a_seeded_search_is_the_golden_one(tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "search.json").read_text())
    found = search(tmp_path, 60, 60)
    assert [(row["view"], row["head"], row["params"], row["origin"]) for row in found] == [
        (row["view"], row["head"], row["params"], row["origin"]) for row in golden
    ]
    assert [row["status"] for row in found] == [row["status"] for row in golden]
    accuracies = [[row["accuracy"] for row in rows] for rows in (found, golden)]
    np.testing.assert_allclose(*accuracies, atol=0.02)


def test_a_learner_saved_by_the_first_release_still_answers() -> None:
    pool = colour_pool(classes=8, per_class=6)
    support = np.concatenate([pool.rows_of_class[c][:2] for c in range(4)])
    one, other = (
        np.array([pool.rows_of_class[c][4] for c in classes]) for classes in ([0, 1, 2, 3], [1, 2, 3, 0])
    )
    between = ((pool.images[one].astype(int) + pool.images[other]) // 2).astype(np.uint8)
    saved = FittedLearner.load(GOLDEN / "learner_1")
    answer = saved.fit(pool.images[support], np.repeat(np.arange(4), 2), 4).predict(between)
    expected = json.loads((GOLDEN / "learner_1_probabilities.json").read_text())
    np.testing.assert_allclose(answer, expected, atol=2e-3)
    assert saved.validation == {"stage": "final", "normalised_accuracy": 0.5}
