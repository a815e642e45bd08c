"""A member of an ensemble: a head on a view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autometa.backbones import View


class Member(BaseModel):
    """A member of the ensemble: a head on a view, its temperature and its weight."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    px: int
    layers: tuple[str, ...] = ("last",)
    flip: bool = False
    variant: str = ""
    head: str
    params: dict[str, Any]
    temperature: float = Field(default=1.0, gt=0)
    weight: float = Field(default=1.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _variant_of_first_release(cls, values: Any) -> Any:
        """Version 0.1 wrote a tuned copy as `BACKBONE+tuned` in the field `backbone`."""
        if isinstance(values, dict) and "+" in str(values.get("backbone", "")):
            backbone, _, variant = values["backbone"].partition("+")
            return {**values, "backbone": backbone, "variant": variant}
        return values

    @classmethod
    def of(
        cls,
        view: View,
        head: str,
        params: Mapping[str, Any],
        *,
        temperature: float = 1.0,
        weight: float = 1.0,
    ) -> Member:
        """A head with its parameters on a view."""
        return cls(**asdict(view), head=head, params=dict(params), temperature=temperature, weight=weight)

    @property
    def view(self) -> View:
        """The view on which its head stands."""
        return View(self.backbone, self.px, self.layers, self.flip, self.variant)


def plain_member(view: View, transform: str = "l2") -> Member:
    """Nearest centroid by cosine on a view, by default with a metric that needs no statistics and no search."""
    return Member.of(view, "centroid", {"transform": transform, "metric": "cosine"}, temperature=0.05)
