"""One voice of an ensemble: a head on a view."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from autometa.backbones import View


class Member(BaseModel):
    """One voice of the ensemble: a head on a view, its temperature and its weight."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    px: int
    layers: tuple[str, ...] = ("last",)
    flip: bool = False
    head: str
    params: dict[str, Any]
    temperature: float = Field(default=1.0, gt=0)
    weight: float = Field(default=1.0, gt=0)

    @property
    def view(self) -> View:
        """The view on which its head stands."""
        return View(self.backbone, self.px, self.layers, self.flip)


def plain_member(view: View, transform: str = "l2") -> Member:
    """Nearest centroid by cosine on a view, by default with a metric that needs no statistics and no search."""
    return Member(
        backbone=view.backbone,
        px=view.px,
        layers=view.layers,
        flip=view.flip,
        head="centroid",
        params={"transform": transform, "metric": "cosine"},
        temperature=0.05,
    )
