"""Proto-MAML."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from autometa.learners.gradient.base import GradientLearner, InnerLoop


class ProtoMAMLOptions(InnerLoop):
    """The head is made of prototypes, and small steps do."""

    rate: float = Field(default=0.02, gt=0)
    head: Literal["prototypes"] = "prototypes"


class ProtoMAML(GradientLearner):
    """MAML whose head starts as the prototypical classifier of the support, W = 2c and b = -|c|², with
    gradients through it (Triantafillou et al. 2020)."""

    options_type = ProtoMAMLOptions
