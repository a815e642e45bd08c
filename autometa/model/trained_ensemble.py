"""Several trained learners as one, and their files."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from autometa.core.errors import ArtifactError
from autometa.core.files import read_description, write_description
from autometa.evaluation.mixing import log_probabilities, mix_batches
from autometa.evaluation.stacking import Stacking
from autometa.learners.trained import UNMEASURED, Images, TrainedCosts, TrainedLearner, TrainedPredictor
from autometa.model.artifact import TrainedShare

FORMAT: Literal["autometa-trained-ensemble-1"] = "autometa-trained-ensemble-1"
FOLDER = "member-{name}"


class EnsembleDescription(BaseModel):
    """What `learner.json` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["autometa-trained-ensemble-1"] = FORMAT
    members: tuple[TrainedShare, ...] = Field(min_length=1)
    validation: dict[str, Any] = {}
    stacking: Stacking | None = None

    @model_validator(mode="after")
    def _check_stacking(self) -> Self:
        if self.stacking is not None and len(self.stacking.numbers) != len(self.members):
            raise ValueError(
                f"stacking has numbers for {len(self.stacking.numbers)} of {len(self.members)} members"
            )
        return self


@dataclass(frozen=True)
class TrainedMember:
    """A learner with its weight, the temperature that calibrates its probabilities, and what it costs; `name` is its
    own."""

    name: str
    learner: TrainedLearner
    weight: float = 1.0
    temperature: float = 1.0
    costs: TrainedCosts = UNMEASURED

    def log_probabilities(self, predictor: TrainedPredictor, images: Images) -> torch.Tensor:
        """Calibrated log-probabilities float64 [q, ways] that its predictor gives for query images."""
        return log_probabilities(predictor.log_probabilities(images), self.temperature)


def save_members(folder: Path, members: Iterable[TrainedMember]) -> tuple[TrainedShare, ...]:
    """Write members each into a folder of its own in `folder`; what a description says of them."""
    return tuple(_saved(folder, member) for member in members)


def _saved(folder: Path, member: TrainedMember) -> TrainedShare:
    name = FOLDER.format(name=member.name)
    (folder / name).mkdir(exist_ok=True)
    member.learner.save(folder / name)
    costs = member.costs
    return TrainedShare(
        folder=name,
        weight=member.weight,
        temperature=member.temperature,
        image_s=costs.image_s,
        task_s=costs.task_s,
    )


def remove_other_members(folder: Path, shares: Iterable[TrainedShare]) -> None:
    """Delete what an earlier state has left: folders of members that the description no longer names."""
    for old in set(folder.glob(FOLDER.format(name="*"))) - {folder / share.folder for share in shares}:
        shutil.rmtree(old)


def load_members(folder: Path, shares: Iterable[TrainedShare], device: str) -> tuple[TrainedMember, ...]:
    """Members that a description names. ArtifactError where a file is missing, damaged or of another version."""
    return tuple(_member(folder, share, device) for share in shares)


@dataclass
class TrainedEnsemble:
    """Learners that answer together, as `stacking` says (None: by the weighted mean of their probabilities). `fit` a
    support set, then `predict` its queries."""

    members: tuple[TrainedMember, ...]
    validation: dict[str, Any] = field(default_factory=dict)
    stacking: Stacking | None = None

    def fit(self, images: Images, labels: NDArray[np.int64], ways: int) -> EnsemblePredictor:
        """Support images uint8 [s, 3, h, w] with labels int64 [s] in 0..ways-1 → a predictor.

        DataError where images and labels do not fit or a class has no image.
        """
        return EnsemblePredictor(self, [m.learner.fit(images, labels, ways) for m in self.members])

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs into `folder`: members each into a folder of its own, then, by an
        atomic rename, the description that names them; members of an earlier state are deleted."""
        shares = save_members(folder, self.members)
        description = EnsembleDescription(members=shares, validation=self.validation, stacking=self.stacking)
        write_description(folder, description)
        remove_other_members(folder, shares)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> TrainedEnsemble:
        """A saved ensemble. ArtifactError where a file is missing, damaged or of another version."""
        description = read_description(folder, EnsembleDescription)
        members = load_members(folder, description.members, device)
        return cls(members, description.validation, description.stacking)


def _member(folder: Path, share: TrainedShare, device: str) -> TrainedMember:
    if Path(share.folder).name != share.folder or share.folder in ("", ".."):
        raise ArtifactError(f"{folder}: `{share.folder}` is not the name of a folder")
    learner = TrainedLearner.load(folder / share.folder, device)
    name = share.folder.removeprefix(FOLDER.format(name=""))
    costs = TrainedCosts(share.image_s, share.task_s)
    return TrainedMember(name, learner, share.weight, share.temperature, costs)


@dataclass(frozen=True)
class EnsemblePredictor:
    """An ensemble with a support set."""

    ensemble: TrainedEnsemble
    predictors: list[TrainedPredictor]

    def predict(self, images: Images) -> NDArray[np.float64]:
        """Class probabilities float64 [q, ways] of query images uint8 [q, 3, h, w]."""
        calibrated = [
            member.log_probabilities(predictor, images)
            for member, predictor in zip(self.ensemble.members, self.predictors, strict=True)
        ]
        if self.ensemble.stacking is not None:
            return self.ensemble.stacking(calibrated).exp().numpy()
        weights = [member.weight for member in self.ensemble.members]
        return mix_batches([[one] for one in calibrated], weights)[0].exp().numpy()
