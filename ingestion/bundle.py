"""Solution bundles: a folder, or a zip file that is checked and unpacked, and their `config.json`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ingestion.archives import unpack
from ingestion.errors import InputError
from ingestion.member_names import show_name
from ingestion.model_file import MODEL_FILE
from ingestion.shown import show
from ingestion.tables import read_json
from ingestion.tasks import TaskConfig

MAX_QUERIES = 20
MOST_SHOWN = 80
"""Characters of a wrong value."""

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


def open_bundle(path: Path, scratch: Path, deadline: float = math.inf) -> Path:
    """The folder of the bundle's files: `path` itself, or `scratch/bundle` with the zip unpacked.

    Raises InputError if there is no `model.py` at its root, the zip file is unsafe, or unpacking it takes until
    `deadline` (monotonic seconds).
    """
    try:
        is_zip = path.is_file()
    except OSError as error:  # such as a name that is too long
        raise InputError(
            f"submission {path}: cannot be opened ({error.strerror}); correct the path"
        ) from error
    folder = scratch / "bundle" if is_zip else path
    if is_zip:
        unpack(path, folder, deadline)
    if not (folder / MODEL_FILE).is_file():
        raise InputError(f"submission {path}: no model.py at its root; {_where_it_lies(folder)}")
    return folder.resolve()


def _where_it_lies(folder: Path) -> str:
    """A `model.py` that is one folder too deep, or in a further archive, and what to do."""
    if inside := sorted(folder.glob("*/model.py")):
        return f"it lies in `{show_name(inside[0].parent.name)}/`: zip the files, not their folder"
    if archives := sorted(folder.glob("*.zip")):
        return f"there is only the archive `{show_name(archives[0].name)}` in it: give that one"
    if other := [file for file in sorted(folder.glob("*.py")) if file.name.casefold() == MODEL_FILE]:
        return f"rename `{other[0].name}` to {MODEL_FILE}"
    return "put the file with the classes MyMetaLearner and MyLearner there"


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
        raise InputError(
            f"{file}: {key} = {show(repr(first['input']), MOST_SHOWN)}: {first['msg']}"
        ) from error
