"""Files of saved learners, written so that a kill leaves the old one or the new: tensors (safetensors, named by
content) and descriptions (JSON). No pickle."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from autometa.core.errors import ArtifactError

DESCRIPTION = "learner.json"


Tensors = Mapping[str, torch.Tensor]


Model = TypeVar("Model", bound=BaseModel)


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
