"""A trained learner, ready for any-way any-shot tasks, and its files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, field_validator

from autometa.core.budget import stopwatch
from autometa.core.errors import ArtifactError
from autometa.core.files import (
    load_tensors,
    read_description,
    remove_other_tensors,
    save_tensors,
    write_description,
)
from autometa.data.images import check_support, hash_images
from autometa.learners.base import EpisodicLearner
from autometa.learners.earlier_defaults import complete, drop_unread, in_full
from autometa.learners.episodes import InputEpisodes
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.training_memory import StepRecord

FORMAT: Literal["autometa-trained-1"] = "autometa-trained-1"
REMEMBERED_BYTES = 512 * 2**20
"""Prepared images that are kept, since tasks share them."""

Images = NDArray[np.uint8]


class TrainedDescription(BaseModel):
    """What `learner.json` holds: the recipe, the names of the files with the learner's tensors and with the
    backbone's, the engine of its frozen part (None: PyTorch), and what validation said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["autometa-trained-1"] = FORMAT
    recipe: Recipe
    network: str
    backbone: str | None = None
    engine: str | None = None
    validation: dict[str, Any] = {}

    @field_validator("recipe", mode="before")
    @classmethod
    def _drop_unread(cls, recipe: Any) -> Any:
        return drop_unread(recipe)


@dataclass(frozen=True)
class TrainedCosts:
    """Measured seconds: to prepare an image, to answer a task of mean size whose images are prepared, alone on the
    machine, and to load the learner; and bytes of a prepared image (0: not measured)."""

    image_s: float = 0.0
    task_s: float = 0.0
    load_s: float = 0.0
    image_bytes: int = 0

    def answering_s(self, images: float, tasks: float) -> float:
        """Seconds for so many distinct images and tasks."""
        return images * self.image_s + tasks * self.task_s


UNMEASURED = TrainedCosts()
"""Where costs were not measured."""


@dataclass
class TrainedLearner:
    """A learner and the recipe that it was made by; `load_s`: what making it took; `memory`: what a step of its
    training took, where that was planned; `task_s`: what a task was measured to take with its slowest options (0: not
    measured). `fit` a support set, then `predict` its queries."""

    recipe: Recipe
    learner: EpisodicLearner
    device: str = "cpu"
    validation: dict[str, Any] = field(default_factory=dict)
    load_s: float = 0.0
    memory: StepRecord | None = None
    task_s: float = 0.0

    def __post_init__(self) -> None:
        self._prepared: dict[bytes, torch.Tensor] = {}

    @classmethod
    def untrained(
        cls, recipe: Recipe, device: str = "cpu", weights: dict[str, torch.Tensor] | None = None
    ) -> TrainedLearner:
        """What a recipe starts from; `weights` of its backbone in place of the pretrained ones. ConfigError for an
        unknown learner or option, WeightsError where weights are missing."""
        elapsed = stopwatch()
        learner = build_learner(recipe, weights).eval().to(device)
        return cls(recipe, learner, device, {"stage": "untrained"}, elapsed())

    def fit(self, images: Images, labels: NDArray[np.int64], ways: int) -> TrainedPredictor:
        """Support images uint8 [s, 3, h, w] with labels int64 [s] in 0..ways-1 → a predictor.

        DataError where images and labels do not fit or a class has no image.
        """
        check_support(images, labels, ways)
        return TrainedPredictor(self, self.prepare(images), torch.from_numpy(np.array(labels)), ways)

    def prepare(self, images: Images) -> torch.Tensor:
        """What the encoder takes for these images [n, ...]; each distinct one is prepared once."""
        keys = hash_images(images)
        new = {key: place for place, key in enumerate(keys) if key not in self._prepared}
        if new:
            rows = self.learner.encoder.prepare(images[list(new.values())])
            if (len(self._prepared) + len(rows)) * rows[0].nbytes > REMEMBERED_BYTES:
                # copies: a row of an earlier call keeps all of that call in memory
                kept = {key: self._prepared[key].clone() for key in keys if key in self._prepared}
                self._prepared = kept
            self._prepared.update(zip(new, rows, strict=True))
        return torch.stack([self._prepared[key] for key in keys])

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into `folder`, atomically."""
        backbone, frozen = self.learner.encoder.backbone_state(), self.learner.encoder.frozen
        description = TrainedDescription(
            recipe=in_full(self.recipe),
            network=save_tensors(folder, "network", self.learner.state_dict()),
            backbone=save_tensors(folder, "backbone", backbone) if backbone else None,
            engine=frozen.engine if frozen else None,
            validation=self.validation,
        )
        write_description(folder, description)
        remove_other_tensors(folder, ("network", "backbone"), (description.network, description.backbone))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> TrainedLearner:
        """A saved learner. ArtifactError where a file is missing, damaged or of another version."""
        description = read_description(folder, TrainedDescription)
        recipe = complete(description.recipe)
        weights = load_tensors(folder, description.backbone) if description.backbone else None
        state = load_tensors(folder, description.network)
        try:
            learner = build_learner(recipe, weights)
            learner.load_state_dict(state)
        except RuntimeError as error:  # torch's, for tensors of other names or shapes
            raise ArtifactError(f"{folder}: its tensors do not fit its recipe ({error})") from error
        if learner.encoder.frozen:
            learner.encoder.frozen.engine = description.engine
        return cls(recipe, learner.eval().to(device), device, description.validation)


@dataclass(frozen=True)
class TrainedPredictor:
    """A learner with a support set."""

    learner: TrainedLearner
    support: torch.Tensor
    labels: torch.Tensor
    ways: int

    def predict(self, images: Images) -> NDArray[np.float64]:
        """Class probabilities float64 [q, ways] of query images uint8 [q, 3, h, w]."""
        return self.log_probabilities(images).exp().numpy()

    def log_probabilities(self, images: Images) -> torch.Tensor:
        """Their logarithms float64 [q, ways], also where a probability is too small for a number."""
        if not len(images):
            return torch.empty(0, self.ways, dtype=torch.float64)
        query = self.learner.prepare(images)
        episode = InputEpisodes(
            self.support[None],
            self.labels[None].long(),
            query[None],
            torch.zeros(1, len(query), dtype=torch.long),
            torch.tensor([self.ways]),
        )
        self.learner.learner.eval()
        with torch.no_grad():
            scores = self.learner.learner(episode.to(self.learner.device))[0]
        return scores.cpu().double().log_softmax(-1)
