"""What the tests of a run's search share: a pool that is not too easy, and a shop with a tiny network."""

from __future__ import annotations

from typing import Any

import numpy as np

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.settings import Settings
from autometa.core.time_policy import TimePolicy
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool
from autometa.data.test_spec import TestSpec
from autometa.evaluation.folds import draw_folds
from autometa.heads.modes import SIX_MODES
from autometa.planning.forecast import Forecast
from autometa.search.draft import PortfolioDraft
from autometa.search.evidence import Evidence
from autometa.search.prices import Prices
from autometa.search.purchases import Gains
from autometa.search.shop import Shop
from autometa.search.variant_training import VariantTrainer
from autometa.search.workbench import TRAINING_FOLD, Workbench

TEST = TestSpec(20, EpisodeSpec(ways=(2, 4), shots=(1, 4), queries_per_class=3), 100, "within-domain")
POLICY = TimePolicy(least_family_s=1.0)
EPISODES = 12
"""Of a fold."""


def hard_pool(classes: int = 15, per_class: int = 8, px: int = 32, spread: float = 60.0) -> ImagePool:
    """Classes told by colour, but each image has a tint of its own."""
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(classes), per_class)
    colours = rng.integers(30, 226, (classes, 3, 1, 1))
    tints = rng.normal(0, spread, (len(labels), 3, 1, 1))
    images = colours[labels] + tints + rng.normal(0, 20, (len(labels), 3, px, px))
    datasets = np.zeros(classes, np.int64)
    return ImagePool(images.clip(0, 255).astype(np.uint8), labels, datasets, ("D0",))


def make_forecast(backbone: str, seconds: float = 120.0, gigabytes: float = 8.0, **limits: Any) -> Forecast:
    """A forecast that has measured the network."""
    budget = TimeBudget.of(seconds)
    memory = MemoryBudget(int(gigabytes * 2**30))
    shelf = BackboneShelf("cpu")
    run = Limits(**(dict[str, Any](train=budget, run=budget, memory=memory) | limits))
    forecast = Forecast(TEST, run, shelf, FeatureStore(shelf, memory), 1.0, POLICY)
    forecast.probe(backbone, hard_pool().images[:8])
    return forecast


def make_bench(
    forecast: Forecast, pool: ImagePool, modes: tuple[str, ...] = SIX_MODES, folds: int = 3
) -> Workbench:
    """A workbench without views."""
    drawn = draw_folds(pool, TEST, folds, EPISODES, np.random.default_rng(0))
    return Workbench(pool, drawn, modes, forecast)


def make_shop(
    backbone: str, forecast: Forecast | None = None, pool: ImagePool | None = None, **settings: Any
) -> Shop:
    """A shop that has not sold anything; `settings` of a run, which trains no copies by default."""
    forecast = forecast or make_forecast(backbone)
    chosen = hard_pool() if pool is None else pool
    bench = make_bench(forecast, chosen)
    given = Settings(**(dict[str, Any](resolutions=(32, 48), tune_steps=0, families=()) | settings))
    unseen = bench.folds[TRAINING_FOLD].classes if bench.folds else np.empty(0, np.int64)
    rows = np.flatnonzero(~np.isin(chosen.labels, unseen))
    trainer = VariantTrainer(chosen, rows, forecast, lambda _: None, given.tune_steps)
    evidence = Evidence(bench, TEST.episodes.balanced)
    first = View(backbone, 32)
    draft = PortfolioDraft(bench, evidence)
    return Shop(draft, Prices(draft, forecast), given, Gains(chosen.classes), trainer, first)
