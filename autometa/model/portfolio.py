"""A portfolio: several views of frozen backbones, fused, answer in several modes at once. Nothing in it was chosen
by its score, so that it can serve with whatever views there was time for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from autometa.backbones import STAGES, View
from autometa.backbones.feature_store import FeatureStore, FeatureTable
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import Machine, MemoryBudget
from autometa.core.files import (
    load_tensors,
    read_description,
    remove_other_tensors,
    save_known,
    write_description,
)
from autometa.core.time_policy import POLICY
from autometa.data.images import check_support, hash_images
from autometa.evaluation.mixing import IDENTITY_TEMPERATURE, ShotTemperature, average
from autometa.heads import FeatureBatch, Metric
from autometa.heads.modes import Key, apply_modes, collect_keys, join_features
from autometa.heads.refine import DEFAULT_REFINEMENT, Refinement
from autometa.model.artifact import MetricKey, hash_metrics, pack_metrics, unpack_metrics
from autometa.planning.meta_test import MetaTestSchedule, reserve_image_s

FORMAT: Literal["autometa-portfolio-1"] = "autometa-portfolio-1"
REMEMBERED_BYTES, REMEMBERED_SHARE = 768 * 2**20, 0.1
"""Features after their metrics, which are kept since tasks share images: so many bytes, and this share of the memory,
at most."""

Images = NDArray[np.uint8]
Embed = Callable[[View], torch.Tensor]
"""Features [n, d] of the images at hand in a view."""


class WeightedMode(BaseModel):
    """A mode of `MODES` and its weight in the mean of log-probabilities."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    weight: float = Field(default=1.0, gt=0)


class PortfolioDescription(BaseModel):
    """What `learner.json` holds: views as `View` names them, with the engine that each is to run on, and a file with
    the metrics on each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["autometa-portfolio-1"] = FORMAT
    views: tuple[str, ...] = Field(min_length=1)
    weights: tuple[float, ...] = ()
    modes: tuple[WeightedMode, ...] = Field(min_length=1)
    refinement: dict[str, float] = {}
    backbones: dict[str, str]
    metrics: tuple[str, ...]
    engines: dict[str, str] = {}
    balanced: bool = False
    temperature: tuple[float, float] = (0.0, 0.0)
    validation: dict[str, Any] = {}

    @field_validator("metrics", mode="before")
    @classmethod
    def _list_files(cls, value: object) -> object:
        """The first learners had one file for all views."""
        return (value,) if isinstance(value, str) else value


def list_inputs(views: Sequence[View], key: Key) -> list[MetricKey]:
    """The inputs of the modes that ask for `key`, over all views: with their layers joined, or one by one."""
    metric, single_layers = key
    layers = [(layer,) for layer in STAGES] if single_layers else [STAGES]
    return [(replace(view, layers=each), metric) for view in views for each in layers]


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

    def __post_init__(self) -> None:
        self._share_in_use = 1.0
        """Of the work of all views and modes, that the task before took: what was measured was that share."""
        self.limit_memory(MemoryBudget.of_machine())

    def limit_memory(self, memory: MemoryBudget) -> None:
        """Embed within this budget from now on."""
        self.store = FeatureStore(self.shelf, memory)
        self._moved: dict[tuple[View, Key], FeatureTable] = defaultdict(FeatureTable)
        self._most_remembered = min(REMEMBERED_BYTES, REMEMBERED_SHARE * memory.total_bytes)

    def fit(self, images: Images, labels: NDArray[np.int64], ways: int) -> PortfolioPredictor:
        """Support images uint8 [s, 3, h, w] with labels int64 [s] in 0..ways-1 → a predictor.

        DataError where images and labels do not fit or a class has no image.
        """
        check_support(images, labels, ways)
        if self.schedule is not None:
            self.schedule.times.begin()
        views, modes = self._affordable()
        self._share_in_use = len(views) * len(modes) / (len(self.views) * len(self.modes))
        predictor = PortfolioPredictor(self, views, modes, torch.from_numpy(np.array(labels)), ways)
        predictor.support = self._join(predictor, images)
        return predictor

    def answer(self, predictor: PortfolioPredictor, images: Images) -> NDArray[np.float64]:
        """Class probabilities float64 [q, ways] of query images uint8 [q, 3, h, w]; rows sum to one."""
        query = self._join(predictor, images)
        batches = {
            key: FeatureBatch(
                predictor.support[key][None],
                predictor.labels[None],
                query[key][None],
                torch.tensor([predictor.ways]),
            )
            for key in query
        }
        names = [mode.name for mode in predictor.modes]
        applied = apply_modes(names, batches, balanced=self.balanced, refinement=self.refinement)
        log_p = applied[:, 0].double()
        mixed = average(list(log_p), [mode.weight for mode in predictor.modes])
        if self.schedule is not None:
            self.schedule.end_task()
        return self.temperature(mixed, len(predictor.labels) / predictor.ways).exp().numpy()

    def _affordable(self) -> tuple[tuple[View, ...], tuple[WeightedMode, ...]]:
        """The views and modes that the time left allows for the task that begins: modes are dropped before views,
        and one of each always answers."""
        schedule = self.schedule
        if schedule is None:
            return self.views, self.modes
        whole_s = schedule.tasks_left * schedule.times.rest_s() / self._share_in_use
        left_s = schedule.left_s()
        embed_s = [
            schedule.images_left(view, self.store) * reserve_image_s(view, self.store) for view in self.views
        ]
        levels = [(len(self.views), n) for n in range(len(self.modes), 0, -1)]
        levels += [(n, 1) for n in range(len(self.views) - 1, 0, -1)]
        for n_views, n_modes in levels:
            share = n_modes * n_views / (len(self.modes) * len(self.views))
            limit_s = left_s * (POLICY.clearly_share if share > self._share_in_use else 1.0)
            if share * whole_s + sum(embed_s[:n_views]) <= limit_s:
                return self.views[:n_views], self.modes[:n_modes]
        return self.views[:1], self.modes[:1]

    def _join(self, predictor: PortfolioPredictor, images: Images) -> dict[Key, torch.Tensor]:
        """Features [n, d] of images by the keys of the predictor's modes, all views side by side."""
        keys, schedule = hash_images(images), self.schedule
        if schedule is not None:
            schedule.count_images(len(images))
            self.store.ahead = int(schedule.images_left(self.views[0], self.store))

        @cache
        def embed(view: View) -> torch.Tensor:
            return self.store.embed(view, images, keys)

        with schedule.times.embedding() if schedule else nullcontext():
            for view in predictor.views:
                embed(view)
        wanted = collect_keys(mode.name for mode in predictor.modes)
        weights = self.weights[: len(predictor.views)] or None
        return {
            key: join_features([self._move(view, key, embed, keys) for view in predictor.views], weights)
            for key in wanted
        }

    def _move(self, view: View, key: Key, embed: Embed, keys: list[bytes]) -> torch.Tensor:
        """Features of a view after the metrics of a key, [n, d]; each distinct image is put through them once."""
        table = self._moved[view, key]
        new = {hashed: row for row, hashed in enumerate(keys) if hashed not in table}
        if new:
            moved = self._apply_metrics(view, key, embed, list(new.values()))
            if sum(each.nbytes for each in self._moved.values()) + moved.nbytes > self._most_remembered:
                self._moved.clear()
                return self._apply_metrics(view, key, embed, list(range(len(keys))))
            table.add(list(new), moved)
        return table.take(keys)

    def _apply_metrics(self, view: View, key: Key, embed: Embed, rows: list[int]) -> torch.Tensor:
        """Features [rows, d] of some images after the metrics of the inputs of a view, side by side."""
        moved = []
        for one in list_inputs([view], key):
            features = embed(one[0])
            moved.append(self.metrics[one](features if len(rows) == len(features) else features[rows]))
        return join_features(moved)

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
        shelf = BackboneShelf(Machine.detect().device, states, report)
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
        )


@dataclass
class PortfolioPredictor:
    """A portfolio that has seen one support set: its features by key, [s, d], and labels [s]."""

    portfolio: Portfolio
    views: tuple[View, ...]
    modes: tuple[WeightedMode, ...]
    labels: torch.Tensor
    ways: int
    support: dict[Key, torch.Tensor] = field(default_factory=dict)

    def predict(self, images: Images) -> NDArray[np.float64]:
        """Class probabilities float64 [q, ways] of query images uint8 [q, 3, h, w]."""
        return self.portfolio.answer(self, images)
