"""Saved learners: `learner.json` beside safetensors files. No pickle; a kill leaves the old one or the new."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from autometa.backbones import View
from autometa.errors import ArtifactError

DESCRIPTION = "learner.json"
STEMS = "backbone", "statistics"
FORMAT: Literal["autometa-learner-1"] = "autometa-learner-1"

Tensors = Mapping[str, torch.Tensor]
Model = TypeVar("Model", bound=BaseModel)


class Member(BaseModel):
    """One voice of the ensemble: a head on a view, its temperature and its weight."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    px: int
    layers: tuple[str, ...] = ("last",)
    flip: bool = False
    head: str
    params: dict[str, Any]
    temperature: float = Field(default=1.0, gt=0)
    weight: float = Field(default=1.0, gt=0)

    @property
    def view(self) -> View:
        """The view on which its head stands."""
        return View(self.backbone, self.px, self.layers, self.flip)


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
    """What `learner.json` holds; `trained` are members beside those with heads; `backbones` and `statistics` name the
    files with tensors, `engines` (by backbone and size, as `name@px`) are those that won on the machine where the
    learner was fitted; `balanced`: queries were declared to be as many of each class; `temperature`: level and slope
    of the ensemble's `ShotTemperature`."""

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


def save_learner(
    folder: Path, description: Description, backbones: Mapping[str, Tensors], statistics: Tensors
) -> None:
    """Write a learner into `folder`: weights of its backbones (each once, named by content), statistics (the
    tensors of its metrics), and last, by an atomic rename, the description that makes them valid; the names
    of the files are filled in. What an earlier state has left, and this one does not name, is deleted then."""
    files = {name: save_tensors(folder, f"{STEMS[0]}-{name}", state) for name, state in backbones.items()}
    saved = save_tensors(folder, STEMS[1], statistics) if statistics else None
    write_description(folder, description.model_copy(update={"backbones": files, "statistics": saved}))
    for file in itertools.chain.from_iterable(folder.glob(f"{stem}-*.safetensors") for stem in STEMS):
        if file.name not in {*files.values(), saved}:
            file.unlink()


def write_description(folder: Path, description: BaseModel) -> None:
    """Write `learner.json`, which makes the files that it names a learner, by an atomic rename."""
    write_model(folder / DESCRIPTION, description)


def write_model(file: Path, model: BaseModel) -> None:
    """Write a model as JSON to a file, which appears whole or not at all."""
    writing = file.with_name(f".{file.name}.{os.getpid()}")
    writing.write_text(model.model_dump_json(indent=1), encoding="utf-8")
    writing.replace(file)


def save_tensors(folder: Path, stem: str, tensors: Tensors) -> str:
    """Write tensors to a file named by their content, unless it is there; its name."""
    digest = hashlib.blake2b(digest_size=6)
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    file = folder / f"{stem}-{digest.hexdigest()}.safetensors"
    if not file.exists():
        write_tensors(file, tensors)
    return file.name


def write_tensors(file: Path, tensors: Tensors) -> None:
    """Write tensors to a safetensors file, which appears whole or not at all."""
    writing = file.with_name(f".{file.name}.{os.getpid()}")
    save_file({name: _own(tensor) for name, tensor in tensors.items()}, writing)
    writing.replace(file)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in main memory that shares it with no other tensor, as the format wants it."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def load_description(folder: Path) -> Description:
    """The checked `learner.json` of a learner that the search chose; see `read_description`."""
    return read_description(folder, Description)


def read_description(folder: Path, model: type[Model]) -> Model:
    """The checked `learner.json` of a folder. ArtifactError names the file and what is wrong with it."""
    file = folder / DESCRIPTION
    try:
        return model.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"{file}: no saved learner ({error.strerror})") from error
    except (UnicodeDecodeError, ValidationError) as error:
        expected = model.model_fields["format"].default
        raise ArtifactError(f"{file}: damaged, or of another version than {expected} ({error})") from error


class _AnyDescription(BaseModel):
    """What all descriptions have in common."""

    format: str = "autometa-learner"


def format_of(folder: Path) -> str:
    """Which kind of learner a folder holds. ArtifactError where it holds none."""
    return read_description(folder, _AnyDescription).format


def load_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Tensors of one file of a saved learner; ArtifactError where it is missing or damaged."""
    if Path(name).name != name:
        raise ArtifactError(f"{folder / DESCRIPTION}: `{name}` is not a file name")
    try:
        return load_file(folder / name)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder / name}: missing or damaged ({error})") from error
