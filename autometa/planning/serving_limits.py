"""What a learner may cost those who use it: time for an image, time to adapt, size on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from autometa.core.options import ServingLimitOptions
from autometa.core.settings import Settings
from autometa.core.units import show_bytes, show_duration

WAYS, SHOTS = 5, 5
"""Of the task that limits are of: so many classes, with so many images each."""
ALMOST_1 = 0.9995
"""From here on, three digits of a number are those of 1."""
VARIABLES = {
    "infer_limit": "AUTOMETA_INFER_LIMIT",
    "adapt_limit": "AUTOMETA_ADAPT_LIMIT",
    "max_model_size": "AUTOMETA_MAX_MODEL_SIZE",
}
"""By which a run tells its submission what its user has asked for."""


@dataclass(frozen=True)
class ServingNeeds:
    """What a learner takes: seconds to predict one image, seconds to adapt to `WAYS` classes with `SHOTS` images
    each, and bytes on disk."""

    infer_s: float = 0.0
    adapt_s: float = 0.0
    model_bytes: int = 0


@dataclass(frozen=True)
class Broken:
    """A limit that is not kept: its option, what was asked, and what it would take; for people."""

    option: str
    asked: str
    needed: str

    def __str__(self) -> str:
        return f"over {self.option} ({self.needed} of {self.asked})"


@dataclass(frozen=True)
class ServingLimits:
    """The most of each that a learner may take (None: any). `model_share`: of the size on disk that was asked for,
    what `model_bytes` is; the rest is for what lies beside the learner."""

    infer_s: float | None = None
    adapt_s: float | None = None
    model_bytes: int | None = None
    model_share: float = 1.0

    @classmethod
    def of(cls, settings: Settings) -> ServingLimits:
        """Those that settings name."""
        return cls(settings.infer_limit, settings.adapt_limit, settings.max_model_size)

    def __bool__(self) -> bool:
        return any(limit is not None for limit in (self.infer_s, self.adapt_s, self.model_bytes))

    @property
    def times(self) -> bool:
        """Whether a time is limited."""
        return self.infer_s is not None or self.adapt_s is not None

    def broken_by(self, needs: ServingNeeds) -> Broken | None:
        """The first limit that a learner with these needs breaks; None where it keeps all."""
        return next(iter(self.all_broken_by(needs)), None)

    def all_broken_by(self, needs: ServingNeeds) -> list[Broken]:
        """Every limit that it breaks."""
        found = []
        if self.infer_s is not None and needs.infer_s > self.infer_s:
            found.append(Broken("--infer-limit", show_duration(self.infer_s), show_ms(needs.infer_s)))
        if self.adapt_s is not None and needs.adapt_s > self.adapt_s:
            found.append(Broken("--adapt-limit", show_duration(self.adapt_s), show_ms(needs.adapt_s)))
        if self.model_bytes is not None and needs.model_bytes > self.model_bytes:
            asked, needed = round(self.model_bytes / self.model_share), needs.model_bytes / self.model_share
            beside = " with its examples" if self.model_share < 1 else ""
            found.append(Broken("--max-model-size", show_bytes(asked), show_mb(needed) + beside))
        return found


def to_variables(options: ServingLimitOptions) -> dict[str, str | None]:
    """The variables that tell a submission what its user has asked for; None: it must not be set."""
    found: dict[str, str | None] = {}
    for name, variable in VARIABLES.items():
        value = getattr(options, name)
        show = str if name == "max_model_size" else show_duration
        found[variable] = None if value is None else show(value)
    return found


def with_asked_limits(settings: Settings, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings with the limits that the user of a run has asked for, if any."""
    asked = {name: environment[variable] for name, variable in VARIABLES.items() if environment.get(variable)}
    return Settings.model_validate(settings.model_dump(exclude_unset=True) | asked) if asked else settings


def asked_limits(environment: Mapping[str, str | None] = os.environ) -> list[str]:
    """The options of the limits that the user of a run has asked for."""
    return [
        f"--{name.replace('_', '-')}" for name, variable in VARIABLES.items() if environment.get(variable)
    ]


def show_ms(seconds: float) -> str:
    """A measured time for people."""
    return f"{1000 * seconds:.3g} ms" if seconds < ALMOST_1 else _plain(seconds, "s")


def show_mb(size: float) -> str:
    """A measured size for people."""
    return f"{size / 1e6:.3g} MB" if size < ALMOST_1 * 1e9 else _plain(size / 1e9, "GB")


def _plain(value: float, unit: str) -> str:
    """Three digits, never with an exponent."""
    return f"{value:.3g} {unit}" if value < 1000 * ALMOST_1 else f"{value:.0f} {unit}"
