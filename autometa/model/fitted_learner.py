"""A fitted learner: heads on frozen views and trained learners, ready for any-way any-shot episodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget
from autometa.core.files import load_tensors
from autometa.core.machine import Machine
from autometa.data.images import check_support, hash_images
from autometa.evaluation.member import Member
from autometa.evaluation.mixing import IDENTITY_TEMPERATURE, ShotTemperature, average, log_probabilities
from autometa.heads import FeatureBatch, Metric, apply_head, find_metric
from autometa.model.artifact import (
    Description,
    MetricKey,
    load_description,
    save_learner,
    unpack_metrics,
)
from autometa.model.trained_ensemble import TrainedMember, load_members, remove_other_members, save_members
from autometa.model.trained_members import Fitted, TrainedMembers
from autometa.planning.meta_test import MetaTestSchedule

Images = NDArray[np.uint8]


@dataclass
class FittedLearner:
    """Members, their networks and metrics, and `trained` members beside them. `fit` a support set, then `predict` its
    queries; `balanced`: these are declared to be equally many of each class."""

    members: tuple[Member, ...]
    shelf: BackboneShelf
    metrics: dict[MetricKey, Metric] = field(default_factory=dict)
    schedule: MetaTestSchedule | None = None
    balanced: bool = False
    validation: dict[str, Any] = field(default_factory=dict)
    trained: tuple[TrainedMember, ...] = ()
    temperature: ShotTemperature = IDENTITY_TEMPERATURE

    def __post_init__(self) -> None:
        self.store = FeatureStore(self.shelf, MemoryBudget.of_machine())
        self.trained_members = TrainedMembers(self.trained)

    def follow(self, schedule: MetaTestSchedule | None) -> None:
        """Answer in the time that a schedule of meta-test leaves; None: without limit."""
        self.schedule = schedule

    def limit_memory(self, memory: MemoryBudget) -> None:
        """Embed within this budget from now on."""
        self.store = FeatureStore(self.shelf, memory)

    @property
    def views(self) -> list[View]:
        """Views of the heads, the one with the largest weight first."""
        weights: dict[View, float] = defaultdict(float)
        for member in self.members:
            weights[member.view] += member.weight
        return sorted(weights, key=lambda view: -weights[view])

    def fit(self, images: Images, labels: NDArray[np.int64], ways: int) -> FittedPredictor:
        """Support images uint8 [s, 3, h, w] with labels int64 [s] in 0..ways-1 → a predictor.

        DataError where images and labels do not fit or a class has no image.
        """
        check_support(images, labels, ways)
        members = self._begin_task()
        with self._aside():
            trained = self.trained_members.fit(images, labels, ways)
        support = self._embed(dict.fromkeys(member.view for member in members), images)
        return FittedPredictor(self, members, support, torch.from_numpy(np.array(labels)), ways, trained)

    def _begin_task(self) -> tuple[Member, ...]:
        """All heads. Where meta-test runs late, trained members are dropped first, then what `schedule` says; a task
        is never skipped."""
        schedule = self.schedule
        if schedule is None:
            return self.members
        images_left = schedule.images_left(self.views[0], self.store)
        self.store.ahead = int(images_left)
        spare_s = schedule.left_s() - schedule.cost_s(self.members, self.store)
        seen = int(schedule.images - images_left)
        self.trained_members.drop_late(spare_s, seen=seen, images=images_left, tasks=schedule.tasks_left)
        return schedule.begin_task(self.members, self.store)

    def _aside(self) -> AbstractContextManager[None]:
        """Around what is measured for itself, not as the rest of a task."""
        return self.schedule.times.embedding() if self.schedule else nullcontext()

    def _embed(self, views: Iterable[View], images: Images) -> dict[View, torch.Tensor]:
        keys = hash_images(images)
        if self.schedule is None:
            return {view: self.store.embed(view, images, keys) for view in views}
        self.schedule.count_images(len(images))
        with self.schedule.times.embedding():
            return {view: self.store.embed(view, images, keys) for view in views}

    def answer(self, predictor: FittedPredictor, images: Images) -> NDArray[np.float64]:
        """Class probabilities [q, ways] of query images uint8 [q, 3, h, w]; float64, rows sum to one."""
        query = self._embed(predictor.support, images)
        log_p = []
        for member in predictor.members:
            with self.schedule.times.answering(member) if self.schedule else nullcontext():
                log_p.append(self._answer_of(member, predictor, query[member.view]))
        weights = [member.weight for member in predictor.members]
        with self._aside():
            log_p += self.trained_members.log_probabilities(predictor.trained, images)
        weights += [member.weight for member, _ in predictor.trained]
        if self.schedule is not None:
            self.schedule.end_task()
        shots = len(predictor.labels) / predictor.ways
        return self.temperature(average(log_p, weights), shots).exp().numpy()

    def _answer_of(self, member: Member, predictor: FittedPredictor, query: torch.Tensor) -> torch.Tensor:
        """Log-probabilities float64 [q, ways] of one member for queries with features float32 [q, d]."""
        view, name = member.view, str(member.params["transform"])
        with_mirrored = self.metrics.get((replace(view, flip=True), name))  # where these were dropped since
        metric = self.metrics.get((view, name)) or with_mirrored or Metric(find_metric(name))
        batch = FeatureBatch(
            support=metric(predictor.support[member.view])[None],
            support_labels=predictor.labels[None],
            query=metric(query)[None],
            ways=torch.tensor([predictor.ways]),
            prior=metric.prior,
        )
        scores = apply_head(member.head, member.params, batch, balanced=self.balanced)
        return log_probabilities(scores[0].double(), member.temperature)

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into `folder`, atomically; folders of earlier members go last."""
        shares = save_members(folder, self.trained)
        description = Description(
            members=self.members,
            trained=shares,
            backbones=self.shelf.save(folder, self.views),
            engines=self.shelf.engine_names(self.views),
            balanced=self.balanced,
            temperature=(self.temperature.level, self.temperature.slope),
            validation=self.validation,
        )
        save_learner(folder, description, self.metrics)
        remove_other_members(folder, shares)

    @classmethod
    def load(cls, folder: Path, report: Callable[[str], None] | None = None) -> FittedLearner:
        """The learner saved in `folder`, with the engines that won where it was fitted (`report` gets a line
        for each that is built); ArtifactError where it is missing or damaged."""
        description = load_description(folder)
        states = {name: load_tensors(folder, file) for name, file in description.backbones.items()}
        tensors = load_tensors(folder, description.statistics) if description.statistics else {}
        wanted = {(m.view, str(m.params["transform"])) for m in description.members}
        shelf = BackboneShelf(Machine.detect().device, states, report)
        shelf.prefer_engines([view for view, _ in wanted], description.engines)
        return cls(
            description.members,
            shelf,
            unpack_metrics(tensors, wanted),
            balanced=description.balanced,
            validation=description.validation,
            trained=load_members(folder, description.trained, shelf.device),
            temperature=ShotTemperature(*description.temperature),
        )


@dataclass
class FittedPredictor:
    """A learner that has seen one support set: its features per view, float32 [s, d], labels [s], and predictors."""

    learner: FittedLearner
    members: tuple[Member, ...]
    support: dict[View, torch.Tensor]
    labels: torch.Tensor
    ways: int
    trained: list[Fitted] = field(default_factory=list)

    def predict(self, images: Images) -> NDArray[np.float64]:
        """Class probabilities [q, ways] of query images uint8 [q, 3, h, w]."""
        return self.learner.answer(self, images)
