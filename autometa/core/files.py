"""Files of saved learners: tensors as safetensors, descriptions as JSON, never pickle.

A file is written under another name and then renamed, so that a kill or a power cut leaves the old file or the new
one, never half of one. Each holds a checksum of its content, which tells a damaged file when it is read; files of
earlier versions have none, and are not checked.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from autometa.core.errors import ArtifactError
from autometa.core.journals import CHECKSUM, checksum_of, replacing, write_whole

DESCRIPTION = "learner.json"
"""Name of the file that makes a folder a saved learner; it names the files with tensors."""

DIGITS = 12
"""Of the digest of its content, in the name of a file with tensors."""

AGAIN = "copy the folder again, or learn anew"

_whole: dict[Path, tuple[int, ...]] = {}
"""Files of tensors that this process has written, or has read and found whole, with their stamps."""

Tensors = Mapping[str, torch.Tensor]
Model = TypeVar("Model", bound=BaseModel)


class _AnyDescription(BaseModel):
    """What all descriptions have in common."""

    format: str = "autometa-learner"


def write_model(file: Path, model: BaseModel, *, durable: bool = True) -> None:
    """Write a pydantic model to a JSON file, atomically; with `durable`, a power cut does no harm either.
    UnwritableFile, an OSError, where it cannot be written."""
    write_whole(file, model.model_dump_json(indent=1), durable=durable)


def write_checked(file: Path, model: BaseModel) -> None:
    """The same, with a checksum, for `read_versioned`."""
    content = json.loads(model.model_dump_json())
    write_whole(file, json.dumps(content | {CHECKSUM: checksum_of(content)}, indent=1))


def write_description(folder: Path, description: BaseModel) -> None:
    """Write `learner.json`, atomically. Write it last: it turns the files that it names into a learner."""
    write_checked(folder / DESCRIPTION, description)


def read_description(folder: Path, model: type[Model]) -> Model:
    """The validated `learner.json` of a folder. ArtifactError names the file and what is wrong with it."""
    return read_versioned(folder / DESCRIPTION, model, "saved learner")


def read_versioned(file: Path, model: type[Model], what: str, remedy: str = AGAIN) -> Model:
    """The validated content of a JSON file whose `format` tells its kind and version, with the checksum of
    `write_checked` or without one. ArtifactError, in one line, where there is no such file (`what`), where it has a
    format that this version does not read, or is damaged; `remedy` says what to do then."""
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise ArtifactError(f"{file}: no {what} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{file}: damaged, or of another version (no text); {remedy}") from error
    try:
        return model.model_validate_json(_without_checksum(file, text, remedy))
    except ValidationError as error:
        raise ArtifactError(f"{file}: {_explain(text, error, model)}{remedy}") from error


def _without_checksum(file: Path, text: str, remedy: str) -> str:
    """A description without its checksum, if it has one. ArtifactError where that is a wrong one."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text  # whose errors are told by the model
    if not isinstance(content, dict) or CHECKSUM not in content:
        return text
    if content.pop(CHECKSUM) != checksum_of(content):
        raise ArtifactError(
            f"{file}: damaged, its content is not what was written; {remedy} (if you have edited it, remove its "
            f"`{CHECKSUM}`)"
        )
    return json.dumps(content)


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
    """Write tensors to a safetensors file, atomically. UnwritableFile, an OSError, where it cannot be written."""
    # the format needs contiguous tensors in main memory that share no storage
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with replacing(file) as partial:
        partial.touch()
        mode = (
            partial.stat().st_mode
        )  # by the user's umask; safetensors 0.8 lets nobody else read what it writes
        try:
            save_file(copies, partial, metadata={CHECKSUM: _checksum_of_tensors(copies)})
        except SafetensorError as error:  # a full disk, as a rule
            raise OSError(str(error)) from error
        partial.chmod(mode)


def _checksum_of_tensors(tensors: Tensors) -> str:
    """Of names, types, shapes and values."""
    checksum = 0
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"


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
    """The same for tensors whose digest is known, so that nothing is hashed, or even gathered, twice. A file that an
    earlier run has left is read once, none that this process has written: a damaged one is written again."""
    file = folder / f"{stem}-{digest[:DIGITS]}.safetensors"
    if not _is_whole(file):
        write_tensors(file, tensors())
        _whole[file] = _stamp(file)
    return file.name


def _is_whole(file: Path) -> bool:
    """Whether a file of tensors is there, and is what was written."""
    try:
        stamp = _stamp(file)
    except FileNotFoundError:
        return False
    if _whole.get(file) != stamp:
        try:
            load_tensors(file.parent, file.name)
        except ArtifactError:
            return False
        _whole[file] = stamp
    return True


def _stamp(file: Path) -> tuple[int, ...]:
    """What changes when a file does."""
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def count_tensor_bytes(folder: Path | None) -> dict[str, int]:
    """Sizes of all files with tensors in a folder and in those below it, by path within it; none without a folder."""
    files = folder.rglob("*.safetensors") if folder is not None else ()
    return {str(file.relative_to(folder)): file.stat().st_size for file in files if folder is not None}


def load_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors in one file of a saved learner. ArtifactError if the file is missing or damaged, or if `name` leads
    out of the folder."""
    if Path(name).name != name:
        raise ArtifactError(f"{folder / DESCRIPTION}: `{name}` is not a file name")
    file = folder / name
    try:
        with safe_open(file, "pt") as opened:
            told = opened.metadata()
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{file}: missing or damaged ({error}); {AGAIN}") from error
    if told is not None and told.get(CHECKSUM) != _checksum_of_tensors(tensors):
        raise ArtifactError(f"{file}: damaged, its content is not what was written; {AGAIN}")
    return tensors


def remove_other_tensors(folder: Path, stems: Iterable[str], kept: Collection[str | None]) -> None:
    """Delete the tensor files of these stems that an earlier state has left and the current one does not name."""
    for stem in stems:
        for file in folder.glob(f"{stem}-*.safetensors"):
            if file.name not in kept:
                file.unlink()
