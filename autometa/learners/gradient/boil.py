"""Body only update in the inner loop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from autometa.learners.gradient.base import GradientLearner, InnerLoop


class BOILOptions(InnerLoop):
    """The head is made of prototypes, which are long: steps are small."""

    rate: float = Field(default=0.02, gt=0)
    head: Literal["prototypes"] = "prototypes"


class BOIL(GradientLearner):
    """MAML whose inner steps change the body only (Oh et al. 2021). The head, which tells the classes apart
    from the first step on, holds the prototypes of the support before adaptation: the paper learns one for a
    fixed number of ways."""

    options_type = BOILOptions
    moves = "body"
