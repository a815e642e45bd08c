"""Files of saved learners: tensors as safetensors, descriptions as JSON, never pickle.

A file is written under another name and then renamed, so that a kill leaves the old file or the new one, never half
of one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from autometa.core.errors import ArtifactError
from autometa.core.journals import write_whole

DESCRIPTION = "learner.json"
"""Name of the file that makes a folder a saved learner; it names the files with tensors."""

DIGITS = 12
"""Of the digest of its content, in the name of a file with tensors."""

Tensors = Mapping[str, torch.Tensor]
Model = TypeVar("Model", bound=BaseModel)


class _AnyDescription(BaseModel):
    """What all descriptions have in common."""

    format: str = "autometa-learner"


def write_model(file: Path, model: BaseModel) -> None:
    """Write a pydantic model to a JSON file, atomically."""
    write_whole(file, model.model_dump_json(indent=1))


def write_description(folder: Path, description: BaseModel) -> None:
    """Write `learner.json`, atomically. Write it last: it turns the files that it names into a learner."""
    write_model(folder / DESCRIPTION, description)


def read_description(folder: Path, model: type[Model]) -> Model:
    """The validated `learner.json` of a folder. ArtifactError names the file and what is wrong with it."""
    return read_versioned(folder / DESCRIPTION, model, "saved learner")


def read_versioned(file: Path, model: type[Model], what: str, remedy: str = "make it again") -> Model:
    """The validated content of a JSON file whose `format` tells its kind and version. ArtifactError, in one line,
    where there is no such file (`what`), where it has a format that this version does not read, or is damaged;
    `remedy` says what to do then."""
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise ArtifactError(f"{file}: no {what} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{file}: damaged, or of another version (no text); {remedy}") from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise ArtifactError(f"{file}: {_explain(text, error, model)}{remedy}") from error


def _explain(text: str, error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with a file: its format, where that is known, else the first entry that does not fit."""
    expected = model.model_fields["format"].default
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, str) and found != expected:
        return (
            f"has the format {found!r:.80}, which this version of autometa does not read (it reads {expected}); "
            "install the version that wrote it, or "
        )
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    reason = " ".join(f"{where}: {first['msg']}".removeprefix(": ").split())
    return f"damaged, or of another version than {expected} ({reason[:300]}); "


def read_format(folder: Path) -> str:
    """The `format` of the learner in a folder, which tells its kind and version. ArtifactError if there is none."""
    return read_description(folder, _AnyDescription).format


def write_tensors(file: Path, tensors: Tensors) -> None:
    """Write tensors to a safetensors file, atomically. OSError where it cannot be written."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    # the format needs contiguous tensors in main memory that share no storage
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    try:
        save_file(copies, partial)
    except SafetensorError as error:  # a full disk, as a rule
        partial.unlink(missing_ok=True)
        raise OSError(f"{file}: cannot be written ({error})") from error
    partial.replace(file)


def hash_tensors(tensors: Tensors) -> str:
    """A digest of names and values, as hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_tensors(folder: Path, stem: str, tensors: Tensors) -> str:
    """Write tensors to `STEM-DIGEST.safetensors`, unless a file with this content exists; returns the file name."""
    return save_known(folder, stem, hash_tensors(tensors), lambda: tensors)


def save_known(folder: Path, stem: str, digest: str, tensors: Callable[[], Tensors]) -> str:
    """The same for tensors whose digest is known, so that nothing is hashed, or even gathered, twice."""
    file = folder / f"{stem}-{digest[:DIGITS]}.safetensors"
    if not file.exists():
        write_tensors(file, tensors())
    return file.name


def count_tensor_bytes(folder: Path | None) -> dict[str, int]:
    """Sizes of all files with tensors in a folder and in those below it, by path within it; none without a folder."""
    files = folder.rglob("*.safetensors") if folder is not None else ()
    return {str(file.relative_to(folder)): file.stat().st_size for file in files if folder is not None}


def load_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors in one file of a saved learner. ArtifactError if the file is missing or damaged, or if `name` leads
    out of the folder."""
    if Path(name).name != name:
        raise ArtifactError(f"{folder / DESCRIPTION}: `{name}` is not a file name")
    try:
        return load_file(folder / name)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{folder / name}: missing or damaged ({error})") from error


def remove_other_tensors(folder: Path, stems: Iterable[str], kept: Collection[str | None]) -> None:
    """Delete the tensor files of these stems that an earlier state has left and the current one does not name."""
    for stem in stems:
        for file in folder.glob(f"{stem}-*.safetensors"):
            if file.name not in kept:
                file.unlink()
