"""The format "autometa-samples-1", checked field by field. Slow to import, so `samples` imports it only to read a
file."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from scoring.text import one_line

_JPEG = b"\xff\xd8\xff"
_LONGEST_PICTURE = 20_000


def _check_picture(text: str) -> str:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    if not data.startswith(_JPEG):
        raise ValueError("is not a JPEG file")
    return text


def _on_one_line(text: str) -> str:
    """With one parameter: older pydantic hands validators that take two more than the value."""
    return one_line(text)


Picture = Annotated[str, Field(max_length=_LONGEST_PICTURE), AfterValidator(_check_picture)]
"""Base64 of a JPEG file."""
_Name = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_on_one_line)]
_Count = Annotated[int, Field(ge=0, le=2**31)]
_Pictures = Annotated[tuple[Picture, ...], Field(max_length=50)]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class SampleClass(_Row):
    """A class of the test and pictures of it."""

    dataset: _Name
    name: _Name
    pictures: _Pictures = ()


class SampleQuery(_Row):
    """A query: its place among those of the task, and its picture."""

    position: _Count
    picture: Picture


class SampleEpisode(_Row):
    """A task: pictures of the support, by label, and some of the queries."""

    task: _Count
    support: Annotated[tuple[_Pictures, ...], Field(max_length=100)]
    queries: Annotated[tuple[SampleQuery, ...], Field(max_length=100)]


class Samples(_Row):
    """A whole file: `tasks` has for each task, from the first one on, the places in `classes` of its labels."""

    format: Literal["autometa-samples-1"]
    classes: tuple[SampleClass, ...]
    tasks: tuple[tuple[_Count, ...], ...]
    episodes: Annotated[tuple[SampleEpisode, ...], Field(max_length=10)] = ()

    @model_validator(mode="after")
    def _places_exist(self) -> Self:
        for number, places in enumerate(self.tasks, start=1):
            if any(place >= len(self.classes) for place in places):
                raise ValueError(f"tasks: task {number} has a class that is not listed")
        return self


def parse_samples(data: bytes) -> Samples:
    """Check the text of a samples file; raises ValueError naming the first wrong field."""
    try:
        return Samples.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{f'{where}: ' if where else ''}{first['msg']}") from None
