"""Meta-SGD."""

from __future__ import annotations

import torch
from torch import nn

from autometa.learners.base import SCALE_FACTOR
from autometa.learners.encoder import Encoder
from autometa.learners.gradient.base import BODY, GradientLearner, InnerLoop


class MetaSGDOptions(InnerLoop):
    """As of every inner loop; `rate` is where the rates start."""


class MetaSGD(GradientLearner):
    """MAML with a learned rate, of either sign, for every number of the body, one for each feature of the head
    and one for its bias (Li et al. 2017); all start at `rate`."""

    options_type = MetaSGDOptions
    options: MetaSGDOptions

    def __init__(self, encoder: Encoder, options: MetaSGDOptions) -> None:
        super().__init__(encoder, options)
        body = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
        self.rates = nn.ParameterDict(
            {_key(BODY + name): nn.Parameter(torch.full_like(p, options.rate)) for name, p in body.items()}
        )
        self.rates[_key("head.weight")] = nn.Parameter(torch.full((encoder.width,), options.rate))
        self.rates[_key("head.bias")] = nn.Parameter(torch.tensor(options.rate))

    def rate_factors(self) -> dict[str, float]:
        """Inner rates change by shares of where they start."""
        return {f"rates.{name}": SCALE_FACTOR * self.options.rate for name in self.rates}

    def rate(self, name: str, step: int) -> torch.Tensor:
        """Inner rate of a parameter; the same in every step."""
        return self.rates[_key(name)]


def _key(name: str) -> str:
    """A name that a module may have."""
    return name.replace(".", "-")
