"""What `learner.json` says of a portfolio."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from autometa.planning.serving import UNKNOWN_COSTS, ServingCosts

FORMAT: Literal["autometa-portfolio-1"] = "autometa-portfolio-1"


class WeightedMode(BaseModel):
    """A mode of `MODES` and its weight in the mean of log-probabilities."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    weight: float = Field(default=1.0, gt=0)


class PortfolioDescription(BaseModel):
    """What `learner.json` holds: views as `View` names them, with the engine that each is to run on, and a file with
    the metrics on each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["autometa-portfolio-1"] = FORMAT
    views: tuple[str, ...] = Field(min_length=1)
    weights: tuple[float, ...] = ()
    modes: tuple[WeightedMode, ...] = Field(min_length=1)
    refinement: dict[str, float] = {}
    backbones: dict[str, str]
    metrics: tuple[str, ...]
    engines: dict[str, str] = {}
    balanced: bool = False
    temperature: tuple[float, float] = (0.0, 0.0)
    validation: dict[str, Any] = {}
    costs: ServingCosts = UNKNOWN_COSTS

    @field_validator("metrics", mode="before")
    @classmethod
    def _list_files(cls, value: object) -> object:
        """The first learners had one file for all views."""
        return (value,) if isinstance(value, str) else value
