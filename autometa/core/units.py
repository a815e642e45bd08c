"""The units that people write in settings: `90s`, `4GB`, `2-20`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, ByteSize, TypeAdapter
from pydantic.fields import FieldInfo

MOST_SECONDS, MOST_BYTES = 1e10, 2**53
"""Larger durations and sizes cannot be meant; up to here, floating-point numbers are exact."""
MOST_QUOTED = 60
"""Characters of a wrong value."""
_SIZES = TypeAdapter(ByteSize)
_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_duration(value: object) -> float:
    """`30ms`, `90s`, `10m`, `1.5h` or a plain number of seconds → seconds. ValueError says what is accepted."""
    text = _plain(value) if isinstance(value, float) else str(value)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if not match or match[2] not in _UNITS_S:
        raise ValueError(f"{_quote(value)} is not a duration; write 30ms, 90s, 10m or 2h")
    seconds = float(match[1]) * _UNITS_S[match[2]]
    if seconds > MOST_SECONDS:
        raise ValueError(f"{_quote(value)} is longer than {MOST_SECONDS:.0e} s; write less")
    return seconds


def _plain(number: float) -> str:
    """A number without an exponent, with as many digits as it has."""
    text = f"{number:.12f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _quote(value: object) -> str:
    return f"`{escape(str(value)[:MOST_QUOTED])}`"


def escape(text: str) -> str:
    """The text with escapes in place of what cannot be shown."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def parse_range(value: object) -> tuple[int, int]:
    """`2-20`, `[2, 20]` or `5` (both ends) → (low, high). ValueError says what is accepted."""
    text = "-".join(map(str, value)) if isinstance(value, (list, tuple)) and len(value) == 2 else str(value)
    match = re.fullmatch(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18}))?\s*", text)
    if not match:
        raise ValueError(f"{_quote(value)} is not a range; write LOW-HIGH, such as 2-20, or one number")
    low, high = int(match[1]), int(match[2] or match[1])
    if low > high:
        raise ValueError(f"{_quote(value)} runs backwards; write {high}-{low}")
    return low, high


def parse_size(value: object) -> ByteSize:
    """`1.5GB`, `512MiB` or bytes → bytes. ValueError says what is accepted."""
    text = _plain(value) if isinstance(value, float) else str(value).lower()
    match = re.fullmatch(r"\s*(\d[\d_]*|\d*\.\d+)\s*([a-z]*)\s*", text)
    whole = match is not None and ("." not in match[1] or match[2] not in ("", "b"))
    try:
        size = _SIZES.validate_python(text) if whole else None
    except (ValueError, OverflowError):
        size = None
    if size is None or size > MOST_BYTES or (match and size == 0 < float(match[1])):
        raise ValueError(f"{_quote(value)} is no size; write 500MB or 2GB")
    return size


def show_duration(seconds: float) -> str:
    """Seconds as people write them: `30ms`, `90s`, `10m`, `2h`."""
    for unit, size in (("h", 3600.0), ("m", 60.0)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    if 0 < seconds < 1:
        return f"{_plain(1000 * seconds)}ms"
    return f"{_plain(seconds)}s"


def show_range(value: tuple[int, int]) -> str:
    """(low, high) as people write it: `2-20`, or `5` where both are the same."""
    return f"{value[0]}-{value[1]}" if value[0] != value[1] else str(value[0])


def show_bytes(size: int) -> str:
    """A size as people write it, without loss: `4GB`, `512MiB`, or bytes."""
    for unit, factor in (("GB", 10**9), ("GiB", 2**30), ("MB", 10**6), ("MiB", 2**20)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


@dataclass(frozen=True)
class Written:
    """How a type of setting is written for people; `show` makes what its parser takes."""

    show: Callable[[Any], str]


def show_value(field: FieldInfo, value: Any) -> Any:
    """A value as people write it, which the model takes again: text, a number, true or false, or None."""
    marks = [*field.metadata, *(mark for kind in get_args(field.annotation) for mark in _marks(kind))]
    written = next((mark for mark in marks if isinstance(mark, Written)), None)
    if written is not None and value is not None:
        return written.show(value)
    if isinstance(value, ByteSize):
        return show_bytes(value)
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _marks(kind: Any) -> tuple[Any, ...]:
    """What is annotated to one of the types that a value may have."""
    return tuple(getattr(kind, "__metadata__", ()))


Duration = Annotated[float, BeforeValidator(parse_duration), Written(show_duration)]
Size = Annotated[ByteSize, BeforeValidator(parse_size)]
Range = Annotated[tuple[int, int], BeforeValidator(parse_range), Written(show_range)]


def _from(least: int) -> AfterValidator:
    def check(value: tuple[int, int]) -> tuple[int, int]:
        if value[0] < least:
            raise ValueError(f"starts at {value[0]}; use {least} or more")
        return value

    return AfterValidator(check)


Ways = Annotated[Range, _from(2)]
Shots = Annotated[Range, _from(1)]
