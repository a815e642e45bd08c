"""Options of `autometa tune-budget`: the axes of the grid, limits, and what is the same for all of its runs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from copy import copy
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from autometa.core.errors import ConfigError
from autometa.core.options import (
    LEAST_GPU_BYTES,
    LEAST_MEMORY_BYTES,
    LEAST_TIME_S,
    RunOptions,
    ServingLimitOptions,
    WeightsOptions,
)
from autometa.core.settings import may_be_added, option
from autometa.core.units import (
    Duration,
    Shots,
    Ways,
    Written,
    parse_duration,
    parse_size,
    show_bytes,
    show_duration,
)

T = TypeVar("T")


def _parse_list(parse: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    """A parser of values that commas separate; each counts once."""

    def parse_all(value: object) -> tuple[T, ...]:
        if not isinstance(value, (str, int, float, list, tuple)):
            raise ValueError(f"`{value!r:.60}` is no list; write values with commas between them")
        parts = list(value) if isinstance(value, (list, tuple)) else str(value).split(",")
        found = [part.strip() if isinstance(part, str) else part for part in parts]
        return tuple(dict.fromkeys(parse(part) for part in found if part != ""))

    return parse_all


def parse_count(value: object) -> int:
    """A whole number from 1 on. ValueError says what is accepted."""
    if not re.fullmatch(r"[1-9]\d{0,3}", str(value)):
        raise ValueError(f"`{ascii(str(value)[:20])[1:-1]}` is no number of threads; write 1, 2 or 4")
    return int(str(value))


def _joined(show: Callable[[Any], str]) -> Written:
    return Written(lambda values: ",".join(map(show, values)))


Durations = Annotated[tuple[float, ...], BeforeValidator(_parse_list(parse_duration)), _joined(show_duration)]
Sizes = Annotated[tuple[int, ...], BeforeValidator(_parse_list(parse_size)), _joined(show_bytes)]
Counts = Annotated[tuple[int, ...], BeforeValidator(_parse_list(parse_count)), _joined(str)]
Names = Annotated[tuple[str, ...], BeforeValidator(_parse_list(str)), _joined(str)]


def _as_for_run(name: str) -> Any:
    """An option of `autometa run`, with its help, default and limits."""
    return copy(RunOptions.model_fields[name])


class TuneOptions(ServingLimitOptions, WeightsOptions):
    """What `tune-budget` is told beside the dataset."""

    time_budget: Durations = option(
        (30.0, 60.0, 180.0), "Time budgets to try, such as 30s,60s,3m,10m.", metavar="TIME,...", min_length=1
    )
    memory_budget: Sizes | None = option(
        None,
        "Memory budgets to try, such as 1.5GB,2GB,4GB.",
        metavar="SIZE,...",
        unset="80 % of the free memory",
        min_length=1,
    )
    gpu_memory_budget: Sizes | None = option(
        None, "The same on the GPU.", metavar="SIZE,...", unset="90 % of its free memory", min_length=1
    )
    threads: Counts | None = option(
        None,
        "Numbers of processors to try, such as 1,2.",
        metavar="N,...",
        unset="all that may be used",
        min_length=1,
    )
    device: str | None = option(
        None,
        "Where networks run: cpu, or a GPU such as cuda:0.",
        metavar="cpu|cuda:N",
        unset="a GPU where there is one",
        pattern=r"^(cpu|cuda(:\d{1,2})?)$",
    )
    submission: Names = option(
        ("autometa",), "Bundles, or names of baselines, to compare.", metavar="NAME,...", min_length=1
    )
    repeats: int = option(1, "Runs of each point, each with other tasks.", metavar="N", ge=1, le=20)
    target_score: str | None = option(
        None,
        "Normalised accuracy to reach, in per cent, or as a share of the best one.",
        metavar="60|95%-of-best",
        pattern=r"^(\d{1,2}(\.\d+)?|100|\d{1,3}(\.\d+)?%-of-best)$",
    )
    within: Duration | None = option(
        None, "Time for all of it; points that do not fit in are left out.", metavar="TIME", gt=0
    )
    skip_same: bool = option(True, "Do not run what is known to be the same run as one with more memory.")
    profile: Names | None = option(
        None,
        "Machines to predict for: t4, m60x4, pi5, laptop, or files of --measure-profile.",
        metavar="NAME|FILE,...",
        min_length=1,
    )
    measure_profile: Path | None = option(
        None, "Write the profile of this machine, for --profile on another one, and stop.", metavar="FILE"
    )
    tasks_per_dataset: int = _as_for_run("tasks_per_dataset")
    query_per_class: int | None = _as_for_run("query_per_class")
    ways: Ways = _as_for_run("ways")
    shots: Shots = _as_for_run("shots")
    image_size: Annotated[int, Field(ge=8, le=1024)] | Literal["auto"] = _as_for_run("image_size")
    image_shape: Literal["auto", "squeeze", "pad", "crop"] = _as_for_run("image_shape")
    seed: int = _as_for_run("seed")
    protocol: Literal["auto", "within-domain", "cross-domain"] = _as_for_run("protocol")
    sandbox: Literal["auto", "strict", "none", "bubblewrap", "landlock"] = _as_for_run("sandbox")
    output: Path | None = option(
        None,
        "Where results go; NAME is that of the dataset.",
        metavar="DIR",
        unset="output/NAME-budget-TIME",
        short="-o",
    )
    resume: bool = option(False, "Go on with the grid in --output; points that are done stay.")
    overwrite: bool = option(False, "Replace an earlier grid in --output.")
    dry_run: bool = option(False, "Print the plan with its predicted time, and stop.")

    @field_validator("time_budget")
    @classmethod
    def _check_times(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return _at_least(value, LEAST_TIME_S, show_duration)

    @field_validator("memory_budget", "gpu_memory_budget")
    @classmethod
    def _check_sizes(cls, value: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        least = LEAST_MEMORY_BYTES if info.field_name == "memory_budget" else LEAST_GPU_BYTES
        return None if value is None else _at_least(value, least, show_bytes)

    @field_validator("resume")
    @classmethod
    def _check_resume(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("output") is None and not may_be_added(info):
            raise ValueError("set output to the folder of the grid to go on with")
        return value

    @field_validator("overwrite")
    @classmethod
    def _check_overwrite(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("resume"):
            raise ValueError("overwrite would delete what resume continues; give only one of them")
        return value


N = TypeVar("N", int, float)


def _at_least(values: tuple[N, ...], least: N, show: Callable[[Any], str]) -> tuple[N, ...]:
    for value in values:
        if value < least:
            raise ValueError(f"{show(value)} is too little; use {show(least)} or more")
    return values


def visible_devices(device: str) -> str:
    """The value of `CUDA_VISIBLE_DEVICES` that leaves only this device, of those that it leaves now. ConfigError
    where it leaves no such device."""
    if device == "cpu":
        return ""
    number, now = device.removeprefix("cuda").removeprefix(":") or "0", os.environ.get("CUDA_VISIBLE_DEVICES")
    if now is None:
        return number
    seen = list(takewhile(lambda name: name and not name.startswith("-"), map(str.strip, now.split(","))))
    if int(number) < len(seen):
        return seen[int(number)]
    raise ConfigError(
        f"--device {device}: CUDA_VISIBLE_DEVICES={now} leaves {len(seen)} GPUs; name another device, or change it"
    )
