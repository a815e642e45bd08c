"""A portfolio: several views of frozen backbones, fused, answer in several modes at once. Nothing in it was chosen
by its score, so that it can serve with whatever views there was time for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import STAGES, View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.feature_table import FeatureTable
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget
from autometa.core.files import (
    load_tensors,
    read_description,
    remove_other_tensors,
    save_known,
    write_description,
)
from autometa.core.machine import Machine, one_thread
from autometa.data.images import check_support
from autometa.evaluation.mixing import IDENTITY_TEMPERATURE, ShotTemperature, average
from autometa.heads import FeatureBatch, Metric
from autometa.heads.class_means import SupportMeans
from autometa.heads.guard import LEAST_QUERIES_PER_WAY
from autometa.heads.modes import Key, apply_modes, collect_keys
from autometa.heads.refine import DEFAULT_REFINEMENT, Refinement
from autometa.heads.solve import FACTOR_JITTER, factor_products
from autometa.model.artifact import MetricKey, hash_metrics, pack_metrics, unpack_metrics
from autometa.model.few_queries import FEW_IMAGES, Mover, side_by_side
from autometa.model.inputs import HashedImages, apply_metrics, list_inputs
from autometa.model.portfolio_description import PortfolioDescription, WeightedMode
from autometa.planning.meta_test import MetaTestSchedule
from autometa.planning.serving import UNKNOWN_COSTS, ServingCosts, ServingPlan

REMEMBERED_BYTES, REMEMBERED_SHARE = 768 * 2**20, 0.1
"""Features after their metrics, which are kept since tasks share images: so many bytes, and this share of the memory,
at most."""

Images = NDArray[np.uint8]


@dataclass
class Portfolio:
    """`views` in the order in which the last are dropped first, `modes` likewise; a fitted metric for each input of
    the modes. `fit` a support set, then `predict` its queries; `balanced`: these are declared to be as many of each
    class."""

    views: tuple[View, ...]
    modes: tuple[WeightedMode, ...]
    shelf: BackboneShelf
    metrics: Mapping[MetricKey, Metric]
    balanced: bool = False
    validation: dict[str, Any] = field(default_factory=dict)
    temperature: ShotTemperature = IDENTITY_TEMPERATURE
    schedule: MetaTestSchedule | None = None
    weights: tuple[float, ...] = ()
    """Of the views, in their order; empty: all the same."""
    refinement: Refinement = DEFAULT_REFINEMENT
    costs: ServingCosts = UNKNOWN_COSTS

    def __post_init__(self) -> None:
        self.plan: ServingPlan | None = None
        self.looks = True  # at few images without keeping what it sees
        self.mover = Mover(self.shelf, self.metrics)
        self.follow(self.schedule)
        self.limit_memory(MemoryBudget.of_machine())

    def follow(self, schedule: MetaTestSchedule | None) -> None:
        """Answer in the time that a schedule of meta-test leaves; None: without limit."""
        self.schedule = schedule
        self.plan = ServingPlan(self.views, len(self.modes), self.costs, schedule) if schedule else None

    def limit_memory(self, memory: MemoryBudget) -> None:
        """Embed within this budget from now on."""
        self.store = FeatureStore(self.shelf, memory)
        self._moved: dict[tuple[View, Key], FeatureTable] = defaultdict(partial(FeatureTable, torch.float16))
        self._most_remembered = min(REMEMBERED_BYTES, REMEMBERED_SHARE * memory.total_bytes)

    def fit(self, images: Images, labels: NDArray[np.int64], ways: int) -> PortfolioPredictor:
        """Support images uint8 [s, 3, h, w] with labels int64 [s] in 0..ways-1 → a predictor.

        DataError where images and labels do not fit or a class has no image.
        """
        check_support(images, labels, ways)
        n_views, n_modes = len(self.views), len(self.modes)
        if self.plan is not None:
            n_views, n_modes = self.plan.begin_task(self.store)
        modes, numbers = self.modes[:n_modes], torch.from_numpy(np.array(labels, np.int64))
        seen = HashedImages(images)
        return PortfolioPredictor(
            self, self._embed(self.views[:n_views], seen), modes, seen.keys, numbers, ways
        )

    def answer(self, predictor: PortfolioPredictor, images: Images) -> NDArray[np.float64]:
        """Class probabilities float64 [q, ways] of query images uint8 [q, 3, h, w]; rows sum to one."""
        few = len(images) < LEAST_QUERIES_PER_WAY * predictor.ways
        applied = (self._answer_alone if few else self._answer_together)(predictor, images)
        mixed = average(list(applied.double()), [mode.weight for mode in predictor.modes])
        if self.plan is not None:
            self.plan.end_task()
        return self.temperature(mixed, len(predictor.labels) / predictor.ways).exp().numpy()

    def _answer_together(self, predictor: PortfolioPredictor, images: Images) -> torch.Tensor:
        """Log-probabilities [modes, q, ways] of queries that may help each other."""
        seen = HashedImages(images)
        views, names = self._embed(predictor.views, seen), [mode.name for mode in predictor.modes]
        n_support, labels, ways = (
            len(predictor.labels),
            predictor.labels[None],
            torch.tensor([predictor.ways]),
        )
        batches = {}
        for key in collect_keys(names):
            joined = self._join(views, key, (*predictor.support, *seen.keys))[None]
            batches[key] = FeatureBatch(joined[:, :n_support], labels, joined[:, n_support:], ways)
        return apply_modes(names, batches, balanced=self.balanced, refinement=self.refinement)[:, 0]

    def _answer_alone(self, predictor: PortfolioPredictor, images: Images) -> torch.Tensor:
        """Log-probabilities [modes, q, ways] of queries that are too few to help each other. What depends on the
        support alone is kept in the predictor."""
        views, names = predictor.views, [mode.name for mode in predictor.modes]
        keys = sorted(collect_keys(names))
        if self.plan is None and self.looks and len(images) <= FEW_IMAGES:
            moved = self.mover.look(self.store, views, keys, images)
            moved = {
                place: features.half().float() for place, features in moved.items()
            }  # as those that are kept
        else:
            seen = HashedImages(images)
            views = self._embed(views, seen)
            moved = {(view, key): self._move(view, key, seen.keys) for view in views for key in keys}
        weights = self._weights_of(views)
        if views not in predictor.means:
            support = {
                (view, key): self._move(view, key, predictor.support) for view in views for key in keys
            }
            together = side_by_side(support, names, views, weights)
            predictor.means[views] = SupportMeans.of(
                names, together, predictor.labels, sharpness=self.refinement.sharpness, raised=FACTOR_JITTER
            )
        with one_thread():
            return predictor.means[views].answer(side_by_side(moved, names, views, weights))

    def _embed(self, views: tuple[View, ...], seen: HashedImages) -> tuple[View, ...]:
        """Embed images in these views, as far as there is time for them in this task."""
        schedule, plan = self.schedule, self.plan
        if schedule is not None:
            schedule.count_images(len(seen.keys))
            self.store.ahead = int(schedule.images_left(self.views[0], self.store))
        with schedule.times.embedding() if schedule else nullcontext():
            if plan is not None:
                return plan.embed(views, seen.images, seen.keys, self.store)
            for view in views:
                self.store.embed(view, seen.images, seen.keys)
        return views

    def _weights_of(self, views: Sequence[View]) -> tuple[float, ...]:
        known = dict(zip(self.views, self.weights, strict=False))
        return tuple(known.get(view, 1.0) for view in views)

    def _join(self, views: Sequence[View], key: Key, keys: Sequence[bytes]) -> torch.Tensor:
        """Features [m, m] of embedded images, whose inner products are the weighted mean of those in these views."""
        weights = self._weights_of(views)
        products = torch.zeros(len(keys), len(keys))
        for view, weight in zip(views, weights, strict=True):
            moved = self._move(view, key, keys)
            products.addmm_(moved, moved.T, alpha=weight / sum(weights))
        return factor_products(products)

    def _move(self, view: View, key: Key, keys: Sequence[bytes]) -> torch.Tensor:
        """Features of a view after the metrics of a key, [n, d]; images are put through them once, as long as there
        is room to remember them."""
        table = self._moved[view, key]
        new = list(dict.fromkeys(hashed for hashed in keys if hashed not in table))
        if new:
            moved = apply_metrics(self.metrics, self.store, view, key, new)
            remembered = sum(each.nbytes for each in self._moved.values())
            if remembered + moved.nbytes // 2 > self._most_remembered:
                return apply_metrics(self.metrics, self.store, view, key, keys)
            table.add(new, moved)
        return table.take(keys).float()

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into `folder`; the description comes last, by an atomic rename."""
        description = PortfolioDescription(
            views=tuple(map(str, self.views)),
            weights=self.weights,
            modes=self.modes,
            refinement=asdict(self.refinement),
            backbones=self.shelf.save(folder, self.views),
            metrics=tuple(self._save_metrics(folder, view) for view in self.views),
            engines=self.shelf.engine_names(self.views),
            balanced=self.balanced,
            temperature=(self.temperature.level, self.temperature.slope),
            validation=self.validation,
            costs=self.costs,
        )
        write_description(folder, description)
        remove_other_tensors(
            folder, ("backbone", "metrics"), (*description.backbones.values(), *description.metrics)
        )

    def _save_metrics(self, folder: Path, view: View) -> str:
        """Write the metrics on a view, unless they are in `folder`; the name of their file."""
        own = {
            key: metric for key, metric in self.metrics.items() if replace(key[0], layers=view.layers) == view
        }

        def pack() -> dict[str, torch.Tensor]:
            half = " projection"
            return {n: t.half() if n.endswith(half) else t for n, t in pack_metrics(own).items()}

        return save_known(folder, "metrics", hash_metrics(own), pack)

    @classmethod
    def load(cls, folder: Path, report: Callable[[str], None] | None = None) -> Portfolio:
        """The portfolio saved in `folder`; ArtifactError where a file is missing, damaged or of another version."""
        description = read_description(folder, PortfolioDescription)
        states = {name: load_tensors(folder, file) for name, file in description.backbones.items()}
        tensors = {
            key: each for file in description.metrics for key, each in load_tensors(folder, file).items()
        }
        views = tuple(map(View.of, description.views))
        layers = {layer for view in views for layer in view.layers} - set(STAGES)
        shelf = BackboneShelf(Machine.detect().device, states, report, layers)
        shelf.prefer_engines(views, description.engines)
        wanted = collect_keys(mode.name for mode in description.modes)
        inputs = {one for key in wanted for one in list_inputs(views, key)}
        return cls(
            views,
            description.modes,
            shelf,
            unpack_metrics({name: tensor.float() for name, tensor in tensors.items()}, inputs),
            balanced=description.balanced,
            validation=description.validation,
            temperature=ShotTemperature(*description.temperature),
            weights=description.weights,
            refinement=Refinement(**description.refinement),
            costs=description.costs,
        )


@dataclass
class PortfolioPredictor:
    """A portfolio that has seen one support set: the identities [s] of its images, and their labels [s]."""

    portfolio: Portfolio
    views: tuple[View, ...]
    modes: tuple[WeightedMode, ...]
    support: list[bytes]
    labels: torch.Tensor
    ways: int
    means: dict[tuple[View, ...], SupportMeans] = field(default_factory=dict, init=False)
    """Of the support in these views, once single queries were asked."""

    def predict(self, images: Images) -> NDArray[np.float64]:
        """Class probabilities float64 [q, ways] of query images uint8 [q, 3, h, w]."""
        return self.portfolio.answer(self, images)
