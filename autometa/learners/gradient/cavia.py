"""Fast context adaptation."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from autometa.learners.encoder import Encoder
from autometa.learners.gradient.base import BODY, GradientLearner, InnerLoop
from autometa.learners.gradient.inner_loop import Params
from autometa.learners.gradient.tasks import Task

CONTEXT = "context"


class CAVIAOptions(InnerLoop):
    """Lengths of the `context` of a class and of the `hidden` layer that sees it."""

    context: int = Field(default=100, ge=1)
    hidden: int = Field(default=128, ge=1)
    rate: float = Field(default=1.0, gt=0)
    head: Literal["zero"] = "zero"


class CAVIA(GradientLearner):
    """Only a context is adapted, from zero; everything else is shared by all tasks (Zintgraf et al. 2019).

    Every class has a context vector of its own, φ_n of length `context`, and its logit is u·relu(A f(x) + B
    φ_n), so that it takes any number of ways and their order does not matter; the paper has one vector for a
    fixed number of ways.
    """

    options_type = CAVIAOptions
    options: CAVIAOptions

    def __init__(self, encoder: Encoder, options: CAVIAOptions) -> None:
        super().__init__(encoder, options)
        self.see = nn.Linear(encoder.width, options.hidden)
        self.condition = nn.Linear(options.context, options.hidden, bias=False)
        self.score = nn.Linear(options.hidden, 1, bias=False)

    def initial(self, task: Task) -> Params:
        """The body, and a context of zeros for every class."""
        params = {BODY + name: p for name, p in self.encoder.named_parameters() if p.requires_grad}
        zeros = torch.zeros(task.ways, self.options.context, device=task.support.device)
        return {**params, CONTEXT: zeros}

    def is_moving(self, name: str) -> bool:
        """Only the context."""
        return name == CONTEXT

    def logits(self, params: Params, inputs: torch.Tensor, step: int, *, recording: bool) -> torch.Tensor:
        """Class logits [n, ways] in this context."""
        seen = self.see(self.features(params, inputs, step, recording=recording))
        joint = F.relu(seen[:, None, :] + self.condition(params[CONTEXT])[None])
        logits: torch.Tensor = self.score(joint)[..., 0]
        return logits
