"""Settings as validated models, read from YAML; `units` has what people write in them."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from autometa.core.errors import ConfigError
from autometa.core.units import (
    MOST_QUOTED,
    Duration,
    Shots,
    Size,
    Ways,
    escape,
)

MOST_SHOWN = 1500
"""Characters of a message."""
MOST_SEED = 2**32 - 1
_WHOLE = "whole"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_ANTIQUATED = re.compile(r":|^[-+]?0[0-9_]")
"""In a number of YAML 1.1: in base 60, or octal."""

Model = TypeVar("Model", bound=BaseModel)


class TestSettings(BaseModel):
    """The meta-test to plan for if ingestion declares none; by default that of the Cross-Domain MetaDL challenge."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    __test__ = False

    tasks: int = Field(default=6000, ge=1)
    images: int | None = Field(default=None, ge=1)
    ways: Ways = (2, 20)
    shots: Shots = (1, 20)
    queries_per_class: int = Field(default=20, ge=1)
    balanced: bool = True
    protocol: Literal["within-domain", "cross-domain"] = "cross-domain"


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

    time_budget: Duration = Field(default=9 * 3600.0, gt=0)
    memory_budget: Size | None = Field(default=None, gt=0)
    test: TestSettings = TestSettings()
    seed: int = Field(default=98, ge=0, le=MOST_SEED)
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

    @field_validator("feature_cache", mode="before")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        """The folder, from the home of the user where it begins with `~`."""
        if isinstance(value, str) and not value.strip():
            raise ValueError("names no folder; name one, or leave out feature_cache")
        if not isinstance(value, (str, Path)) or not str(value).startswith("~"):
            return value
        folder = os.path.expanduser(value)  # noqa: PTH111 - the other one raises where there is no home
        if str(folder).startswith("~"):
            raise ValueError("there is no such home; name the folder from the root, such as /data/features")
        return folder


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


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once, and `1:30` and `010` are text: to YAML 1.1 they are 90 and 8."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(
                    f"`{key.value}` stands in line {lines[key.value]} and again in line {line}"
                )
            lines[key.value] = line
        return node

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        is_number = kind is yaml.ScalarNode and tag in _NUMBERS
        return self.DEFAULT_SCALAR_TAG if is_number and _ANTIQUATED.search(value) else tag


def load_yaml(file: Path, model: type[Model]) -> Model:
    """The settings in a YAML file, to which others may be added: a setting may need one that is not in the file.
    ConfigError names the file, the key, its value and, for an unknown key, the closest known one."""
    try:
        content = _Loader(file.read_text(encoding="utf-8")).get_single_data() or {}
    except (OSError, yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # of values that are not what they are marked as, PyYAML raises what Python does
        reason = (
            str(error) if isinstance(error, (OSError, yaml.YAMLError, UnicodeDecodeError)) else repr(error)
        )
        raise ConfigError(_one_line(f"{file}: cannot be read as YAML ({reason}); correct it")) from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: must hold `key: value` lines, not {type(content).__name__}")
    for key in map(str, content):
        if "-" in key and key.replace("-", "_") in content:
            raise ConfigError(
                _one_line(f"{file}: `{key}` and `{key.replace('-', '_')}` are one key; keep one")
            )
    return validate_settings(model, use_underscores(content), str(file), whole=False)


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


def validate_settings(model: type[Model], values: dict[str, Any], where: str, *, whole: bool = True) -> Model:
    """A `model` with these values. ConfigError names the place (`where`), the key, its value and the fix. `whole`: no
    others are added to them later (see `may_be_added`)."""
    try:
        return model.model_validate(values, context={_WHOLE: whole})
    except ValidationError as error:
        raise ConfigError(_one_line(f"{where}: {_explain(error, model)}")) from error


def may_be_added(info: ValidationInfo) -> bool:
    """Whether a setting that another one needs may come later, as from the command line after a file."""
    return not (info.context or {}).get(_WHOLE, True)


def _one_line(text: str) -> str:
    """A message in one line that any terminal can show; of a long one, the middle is left out."""
    text = " ".join(text.split())
    if len(text) > MOST_SHOWN:
        text = f"{text[: MOST_SHOWN // 2]}…{text[-MOST_SHOWN // 2 :]}"
    return escape(text)


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors()[0]
    path = first["loc"]
    key = ".".join(map(str, path)) or "settings"
    if first["type"] != "extra_forbidden":
        shown = repr(first["input"])
        shown = shown if len(shown) <= MOST_QUOTED else f"{shown[:MOST_QUOTED]}…"
        return f"{key} = {shown}: {first['msg'].removeprefix('Value error, ')}"
    known = _known_keys(model, path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean `{close[0]}`?" if close else f"known keys: {', '.join(known)}"
    return f"unknown key `{key}`; {hint}"


def _known_keys(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys of what stands at a path within a model. Numbers, and keys of a mapping, lead to another of a kind."""
    models = [model]
    for part in path:
        fields = [one.model_fields.get(str(part)) for one in models]
        inner = [one for field in fields if field is not None for one in _models_in(field.annotation)]
        models = inner or models
    return list(dict.fromkeys(name for one in models for name in one.model_fields))


def _models_in(kind: Any) -> Iterator[type[BaseModel]]:
    """The models among the types that a value, or what it holds, may have."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in get_args(kind):
        yield from _models_in(inner)
