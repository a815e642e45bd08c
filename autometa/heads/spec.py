"""What a row of `HEADS` says about a head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Params = dict[str, Any]
"""Parameters by name; those of a head have `transform`, the name of a metric, too."""


@dataclass(frozen=True)
class HeadSpec:
    """A row of `HEADS`.

    `function` takes a `FeatureBatch` and keyword parameters and returns scores [b, q, n]; `params` are usual values
    of these. A transductive head uses all queries of an episode together; one that `needs_balance` assumes that each
    class has as many queries. For episodes that are not suitable (see `guard`), its `counterpart` answers: an
    inductive head with the same parameters and scores of the same scale.
    """

    function: Callable[..., torch.Tensor]
    params: Params = field(default_factory=dict)
    needs_balance: bool = False
    counterpart: Callable[..., torch.Tensor] | None = None

    @property
    def transductive(self) -> bool:
        """Whether the head uses all queries of an episode together."""
        return self.counterpart is not None
