"""Solution bundles: a folder, or a zip file that is unpacked with path checks and size caps."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ingestion.errors import InputError
from ingestion.tables import read_json
from ingestion.tasks import TaskConfig

MAX_FILES = 20_000
MAX_UNPACKED_BYTES = 8 * 2**30
MAX_QUERIES = 20

TRAIN_DEFAULTS: dict[str, Any] = {"N": 5, "min_N": None, "max_N": None, "query_images_per_class": 20}
VALID_DEFAULTS: dict[str, Any] = {"N": None, "query_images_per_class": 20}


class SubmissionConfig(BaseModel):
    """The optional `config.json` of a bundle (Cross-Domain MetaDL); unknown keys are ignored, as in the original
    program."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    train_data_format: str = "task"
    batch_size: int = Field(default=16, ge=1)
    validation_datasets: int = Field(default=0, ge=0, le=9)
    train_config: TaskConfig = TaskConfig(**TRAIN_DEFAULTS)
    valid_config: TaskConfig = TaskConfig(**VALID_DEFAULTS)

    @field_validator("validation_datasets", "batch_size", mode="before")
    @classmethod
    def _null_is_default(cls, value: object, info: object) -> object:
        return value if value is not None else (0 if getattr(info, "field_name", "") != "batch_size" else 16)

    @field_validator("train_config", "valid_config", mode="before")
    @classmethod
    def _over_defaults(cls, value: object, info: object) -> object:
        if not isinstance(value, dict):
            return value
        defaults = TRAIN_DEFAULTS if getattr(info, "field_name", "") == "train_config" else VALID_DEFAULTS
        return {**defaults, **value}

    @field_validator("train_config", "valid_config")
    @classmethod
    def _few_queries(cls, value: TaskConfig) -> TaskConfig:
        if value.query_images_per_class > MAX_QUERIES:
            raise ValueError(f"query_images_per_class is at most {MAX_QUERIES}")
        return value

    @property
    def data_format(self) -> Literal["task", "batch"]:
        """Any value but "task" means batches, as in the original program."""
        return "task" if self.train_data_format == "task" else "batch"


def open_bundle(path: Path, scratch: Path) -> Path:
    """The folder of the bundle's files: `path` itself, or `scratch/bundle` with the zip unpacked.

    Raises InputError if there is no `model.py` at its root or the zip file is unsafe.
    """
    folder = path
    if path.is_file():
        folder = scratch / "bundle"
        _unpack(path, folder)
    if not (folder / "model.py").is_file():
        inside = sorted(folder.glob("*/model.py"))
        hint = f"; it lies in `{inside[0].parent.name}/`: zip the files, not their folder" if inside else ""
        raise InputError(f"submission {path}: no model.py at its root{hint}")
    return folder.resolve()


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = bundle.infolist()
            if len(members) > MAX_FILES:
                raise InputError(f"submission {archive}: {len(members)} files, at most {MAX_FILES}")
            if sum(m.file_size for m in members) > MAX_UNPACKED_BYTES:
                raise InputError(f"submission {archive}: unpacks to more than {MAX_UNPACKED_BYTES} bytes")
            for member in members:
                parts = Path(member.filename).parts
                if Path(member.filename).is_absolute() or ".." in parts or "\\" in member.filename:
                    raise InputError(f"submission {archive}: `{member.filename}` leaves the bundle's folder")
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise InputError(f"submission {archive}: `{member.filename}` is a link; put the file in")
            bundle.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise InputError(f"submission {archive}: not a readable zip file ({error})") from error


def read_config(folder: Path) -> SubmissionConfig:
    """The bundle's `config.json` over the format's defaults; InputError names the key and the value."""
    file = folder / "config.json"
    if not file.exists():
        return SubmissionConfig()
    content = read_json(file)
    try:
        return SubmissionConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{file}: {key} = {first['input']!r}: {first['msg']}") from error
