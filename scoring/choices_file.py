"""The format "autometa-choices-1", checked field by field: a submission wrote it, so nothing in it is trusted.

Slow to import, so `choices` imports it only to read a file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from scoring.text import one_line

_MOST_ROWS = 500


def _shorten(text: str) -> str:
    return one_line(text, 1000)


def _on_one_line(text: str) -> str:
    """With one parameter: older pydantic hands validators that take two more than the value."""
    return one_line(text)


_Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_on_one_line)]
_Text = Annotated[str, Field(max_length=1000), AfterValidator(_shorten)]
_Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
_Gain = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1 + 1e-6, allow_inf_nan=False)]
_Error = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
_Bytes = Annotated[int, Field(ge=0, le=2**60)]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Member(_Row):
    """A part of the learner and its weight; `accuracy` (normalised): alone, as the submission measured it."""

    name: _Name
    kind: Literal["view", "trained", "mode"]
    weight: _Share
    accuracy: _Gain | None = None


class Trial(_Row):
    """Something that was tried; gains in normalised accuracy, `error` is the standard error of the one measured."""

    name: _Name
    kind: _Name
    predicted_s: _Seconds | None = None
    actual_s: _Seconds | None = None
    expected_gain: _Gain | None = None
    gain: _Gain | None = None
    error: _Error | None = None
    outcome: Literal["kept", "undone", "failed"] = "kept"
    note: _Text = ""


class Served(_Row):
    """A learner that could answer from so many seconds after the start on, and the accuracy that it promised."""

    seconds: _Seconds
    stage: _Name
    accuracy: _Gain | None = None
    low: _Gain | None = None
    high: _Gain | None = None


class Choices(_Row):
    """What a submission says it has chosen, and why."""

    format: Literal["autometa-choices-1"]
    what: _Text = ""
    why: _Text = ""
    members: Annotated[tuple[Member, ...], Field(max_length=_MOST_ROWS)] = ()
    trials: Annotated[tuple[Trial, ...], Field(max_length=_MOST_ROWS)] = ()
    served: Annotated[tuple[Served, ...], Field(max_length=_MOST_ROWS)] = ()
    meta_test_bytes: _Bytes | None = None


def parse_choices(data: bytes) -> Choices:
    """Check the text of a choices file; raises ValueError naming the first wrong field."""
    try:
        return Choices.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{f'{where}: ' if where else ''}{first['msg']}") from None


def change_texts(choices: Choices, change: Callable[[str], str]) -> Choices:
    """The same with every free text changed."""

    def renamed(row: _Row, *names: str) -> dict[str, str]:
        return {name: change(getattr(row, name)) for name in names}

    return choices.model_copy(
        update={
            **renamed(choices, "what", "why"),
            "members": tuple(row.model_copy(update=renamed(row, "name")) for row in choices.members),
            "trials": tuple(
                row.model_copy(update=renamed(row, "name", "kind", "note")) for row in choices.trials
            ),
            "served": tuple(row.model_copy(update=renamed(row, "stage")) for row in choices.served),
        }
    )
