"""Settings as validated models, read from YAML, with the units that people write (`90s`, `4GB`, `2-20`)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic.fields import FieldInfo

from autometa.core.errors import ConfigError

MOST_SECONDS, MOST_BYTES = 1e10, 2**53
"""Larger durations and sizes cannot be meant; up to here, floating-point numbers are exact."""
MOST_QUOTED, MOST_SHOWN = 60, 1500
"""Characters of a wrong value, and of a message."""
_SIZES = TypeAdapter(ByteSize)
_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

Model = TypeVar("Model", bound=BaseModel)


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
    return f"`{_escape(str(value)[:MOST_QUOTED])}`"


def _escape(text: str) -> str:
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
    try:
        size = None if isinstance(value, bool) else _SIZES.validate_python(value)
    except (ValueError, OverflowError):
        size = None
    if size is None or not 0 <= size <= MOST_BYTES:
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


class TestSettings(BaseModel):
    """The meta-test to plan for if ingestion declares none; by default that of the Cross-Domain MetaDL challenge."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    __test__ = False

    tasks: int = Field(default=6000, ge=1)
    images: int | None = Field(default=None, ge=1)
    ways: Range = (2, 20)
    shots: Range = (1, 20)
    queries_per_class: int = Field(default=20, ge=1)
    balanced: bool = True
    protocol: str = "cross-domain"


Family = Literal[
    "reptile", "pmf", "prototypical", "finetune", "proto_maml", "anil", "fomaml", "adapters", "maml"
]
FAMILIES_IN_ORDER: tuple[Family, ...] = get_args(Family)
"""The most useful first: by their gain over frozen backbones in the same time."""


FurtherLayer = Literal[
    "stage3_gem", "stage4_gem", "stage3_max", "stage4_max", "class", "patches", "two_thirds", "five_sixths"
]
"""Layers of `autometa.backbones.LAYERS` that are not among the usual ones."""


class Settings(BaseModel):
    """What a user can set. The budgets apply only if ingestion gives none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_budget: Duration = 9 * 3600.0
    memory_budget: Size | None = None
    test: TestSettings = TestSettings()
    seed: int = 98
    backbones: tuple[str, ...] | None = None
    resolutions: tuple[int, ...] = (96, 128, 160, 224)
    layers: tuple[FurtherLayer, ...] = ()
    """Further layers of each network, as far as it has them, that make up its embedding."""
    validation_episodes: int = Field(default=240, ge=10)
    """Over held-out classes, of all folds together."""
    max_trials: int = Field(default=200, ge=1)
    """Refinements of the portfolio that are tried at the end, at most."""
    tune_steps: int = Field(default=600, ge=0)
    """Steps of training the last stages of a copy of a backbone by classification, at most; 0: none is trained so."""
    max_steps: int | None = Field(default=None, ge=1)
    """Of a bundle that trains one learner: it makes so many steps, and no result depends on time."""
    meta_batch: int | None = Field(default=None, ge=1)
    """Of such a bundle: episodes of a step (None: as many as its recipe has)."""
    families: tuple[Family, ...] = FAMILIES_IN_ORDER
    """Learners that may train a copy of a backbone, as far as time allows."""
    infer_limit: Duration | None = Field(default=None, gt=0)
    """Seconds to predict one image with the learner, at most (None: any), and the two below: see `ServingLimits`."""
    adapt_limit: Duration | None = Field(default=None, gt=0)
    max_model_size: Size | None = Field(default=None, gt=0)
    feature_cache: Path | None = None
    """Folder that keeps features for later runs. Off by default, since a sandbox is deleted after the run."""
    feature_cache_size: Size = ByteSize(4 * 2**30)

    @field_validator("resolutions")
    @classmethod
    def _check_sizes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 16 or max(value) > 1024:
            raise ValueError("give one or more sizes, each from 16 to 1024 pixels")
        return value


def option(
    default: Any, description: str, *, metavar: str = "", unset: str = "", short: str = "", **limits: Any
) -> Any:
    """A field that is an option of a command and of its YAML file: `autometa.cli.options` reads what stands here.

    `description` ends in a full stop. `metavar` names the value and its unit. `unset` says what happens by default
    where `default` is None, or adds to it where it is not. `short`: a flag of one letter, such as `-o`. `limits` are
    those of `pydantic.Field`.
    """
    extra: dict[str, Any] = {"metavar": metavar, "unset": unset, "short": short}
    return Field(default=default, description=description, json_schema_extra=extra, **limits)


def load_yaml(file: Path, model: type[Model]) -> Model:
    """The settings in a YAML file. ConfigError names the file, the key, its value and, for an unknown key, the
    closest known one."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # of values that are not what they are marked as, PyYAML raises what Python does
        reason = (
            str(error) if isinstance(error, (OSError, yaml.YAMLError, UnicodeDecodeError)) else repr(error)
        )
        raise ConfigError(_one_line(f"{file}: cannot be read as YAML ({reason}); correct it")) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: must hold `key: value` lines, not {type(content).__name__}")
    return validate_settings(model, use_underscores(content), str(file))


def dump_yaml(value: object) -> str:
    """A plain value as YAML on one line."""
    text = _dump_yaml(value)
    return text if "\n" not in text else _dump_yaml(value, quotes='"')  # which hold line breaks


def _dump_yaml(value: object, quotes: str | None = None) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, default_style=quotes, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def use_underscores(values: dict[Any, Any]) -> dict[str, Any]:
    """The same values under keys with underscores: `time-budget` becomes `time_budget`."""
    return {str(key).replace("-", "_"): value for key, value in values.items()}


def validate_settings(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """A `model` with these values. ConfigError names the place (`where`), the key, its value and the fix."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_one_line(f"{where}: {_explain(error, model)}")) from error


def _one_line(text: str) -> str:
    """A message in one line that any terminal can show; of a long one, the middle is left out."""
    text = " ".join(text.split())
    if len(text) > MOST_SHOWN:
        text = f"{text[: MOST_SHOWN // 2]}…{text[-MOST_SHOWN // 2 :]}"
    return _escape(text)


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path) or "settings"
    if first["type"] != "extra_forbidden":
        shown = repr(first["input"])
        shown = shown if len(shown) <= MOST_QUOTED else f"{shown[:MOST_QUOTED]}…"
        return f"{key} = {shown}: {first['msg'].removeprefix('Value error, ')}"
    known: list[str] = list(model.model_fields)
    for part in path[:-1]:
        annotation = model.model_fields[part].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            known = list(annotation.model_fields)
    close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean `{close[0]}`?" if close else f"known keys: {', '.join(known)}"
    return f"unknown key `{key}`; {hint}"
