"""Saved learners: `learner.json` beside safetensors files. No pickle; a kill leaves the old one or the new."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from autometa.backbones import View
from autometa.core.files import (
    Tensors,
    read_description,
    remove_other_tensors,
    save_known,
    write_description,
)
from autometa.evaluation.member import Member
from autometa.heads import Metric, find_metric

MetricKey = tuple[View, str]
"""A view with its layers, and the name of the metric on it."""
STEMS = "backbone", "statistics"
FORMAT: Literal["autometa-learner-1"] = "autometa-learner-1"


class TrainedShare(BaseModel):
    """A trained learner in an ensemble: the folder beside `learner.json` that holds it, its weight and temperature,
    and the measured seconds to prepare an image for it and to answer a task of mean size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    weight: float = Field(gt=0)
    temperature: float = Field(gt=0)
    image_s: float = Field(default=0.0, ge=0)
    task_s: float = Field(default=0.0, ge=0)


class Description(BaseModel):
    """What `learner.json` holds; `trained` are members beside those with heads; `backbones` and `statistics` name
    the files with tensors, `engines` (by backbone and size, as `name@px`) are those that won on the machine where
    the learner was fitted; `balanced`: queries were declared to be equally many of each class; `temperature`: level
    and slope of the ensemble's `ShotTemperature`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["autometa-learner-1"] = FORMAT
    members: tuple[Member, ...] = Field(min_length=1)
    trained: tuple[TrainedShare, ...] = ()
    backbones: dict[str, str] = {}
    statistics: str | None = None
    engines: dict[str, str] = {}
    balanced: bool = False
    temperature: tuple[float, float] = (0.0, 0.0)
    validation: dict[str, Any] = {}


def save_learner(folder: Path, description: Description, metrics: Mapping[MetricKey, Metric]) -> None:
    """Write a learner into `folder`, which has the weights of its backbones: statistics (the tensors of its metrics),
    and last, by an atomic rename, the description that makes all valid; the name of the file is filled in. What an
    earlier state has left, and this one does not name, is deleted then."""
    saved = None
    if pack_metrics(metrics):
        saved = save_known(folder, STEMS[1], hash_metrics(metrics), partial(pack_metrics, metrics))
    write_description(folder, description.model_copy(update={"statistics": saved}))
    remove_other_tensors(folder, STEMS, (*description.backbones.values(), saved))


def hash_metrics(metrics: Mapping[MetricKey, Metric]) -> str:
    """A digest of fitted metrics, each of which is hashed once however often it is saved."""
    digest = hashlib.blake2b(digest_size=16)
    for (view, name), metric in sorted(metrics.items(), key=lambda item: (str(item[0][0]), item[0][1])):
        digest.update(f"{view} {name} {metric.digest}".encode())
    return digest.hexdigest()


def pack_metrics(metrics: Mapping[MetricKey, Metric]) -> dict[str, torch.Tensor]:
    """Tensors of fitted metrics by the names that `unpack_metrics` understands."""
    return {
        f"{view} {name} {part}": tensor
        for (view, name), metric in metrics.items()
        for part, tensor in metric.tensors().items()
    }


def unpack_metrics(tensors: Tensors, wanted: Iterable[MetricKey]) -> dict[MetricKey, Metric]:
    """The wanted metrics out of what `pack_metrics` gave; one that needs no tensors has none."""
    parts: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        metric, _, part = key.rpartition(" ")
        parts[metric][part] = tensor
    return {
        (view, name): Metric.from_tensors(find_metric(name), parts.get(f"{view} {name}", {}))
        for view, name in wanted
    }


def load_description(folder: Path) -> Description:
    """The checked `learner.json` of a learner that the search chose; see `read_description`."""
    return read_description(folder, Description)
