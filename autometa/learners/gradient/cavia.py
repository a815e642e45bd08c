"""Fast context adaptation."""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from autometa.learners.encoder import Encoder, ScratchEncoder
from autometa.learners.gradient.base import BODY, GradientLearner, InnerLoop, build_prototype_head
from autometa.learners.gradient.inner_loop import Params
from autometa.learners.gradient.norm import TaskNorm, forget_statistics
from autometa.learners.gradient.tasks import Task

CONTEXT = "context"
BLOCK = 2
"""Of a network from scratch, the block whose channels a context scales and shifts: the third, as in the paper."""


class CAVIAOptions(InnerLoop):
    """Length of a `context`; its `conditioning`, explained at `CAVIA`; the `hidden` layer that sees the contexts of
    classes; the `head`: `prototypes`, or `learned` for so many `ways`, under `film`, none (`zero`) under `class`."""

    context: int = Field(default=100, ge=1)
    steps: int = Field(default=2, ge=1)
    test_steps: int = Field(default=2, ge=0)
    conditioning: Literal["class", "film"] = "film"
    hidden: int = Field(default=128, ge=1)
    rate: float = Field(default=1.0, gt=0)
    head: Literal["zero", "prototypes", "learned"] = "prototypes"

    @model_validator(mode="after")
    def _check_head(self) -> Self:
        if (self.conditioning == "class") != (self.head == "zero"):
            raise ValueError(
                f"conditioning: {self.conditioning} with head: {self.head}; film needs head: prototypes or learned, "
                "class needs head: zero"
            )
        return self


class CAVIA(GradientLearner):
    """Only a context is adapted, from zero; everything else is shared by all tasks (Zintgraf et al. 2019).

    `film`, as in the paper: one context φ for the task. γ and β, linear in φ and 1 and 0 without it, make γ ⊙ x + β
    of the channels x of the third block of a network from scratch, after its norm and before its activation, or of
    the embedding of a pretrained network. The head is the paper's, `learned` for a fixed number of ways; or, for any,
    the `prototypes` of the support, embedded in the same context at every step.

    `class`: every class has a context φ_n of its own, and its logit is u·relu(A f(x) + B φ_n).
    """

    options_type = CAVIAOptions
    options: CAVIAOptions

    def __init__(self, encoder: Encoder, options: CAVIAOptions) -> None:
        super().__init__(encoder, options)
        self._norms = find_norms(encoder)
        if options.conditioning == "film":
            norms = [encoder.get_parameter(f"{norm}.weight") for norm in self._norms]
            self.film = FiLM(options.context, norms[0].shape[-1] if norms else encoder.width)
        else:
            self.see = nn.Linear(encoder.width, options.hidden)
            self.condition = nn.Linear(options.context, options.hidden, bias=False)
            self.score = nn.Linear(options.hidden, 1, bias=False)

    def initial(self, task: Task) -> Params:
        """The body, a learned head, and a context of zeros: one, or one for every class."""
        if self.options.head == "learned":
            params = super().initial(task)
        else:
            params = {BODY + name: p for name, p in self.encoder.named_parameters() if p.requires_grad}
        contexts = (task.ways,) if self.options.conditioning == "class" else ()
        zeros = torch.zeros(*contexts, self.options.context, device=task.support.device)
        return {**params, CONTEXT: zeros}

    def is_moving(self, name: str) -> bool:
        """Only the context."""
        return name == CONTEXT

    def support_loss(self, params: Params, step: int, *, task: Task) -> torch.Tensor:
        """Cross-entropy of the support; by its own prototypes where these are the head."""
        if self.options.head != "prototypes":
            return super().support_loss(params, step, task=task)
        support = self.features(params, task.support, step, recording=True)
        head = build_prototype_head(support, task.support_labels, task.ways)
        return F.cross_entropy(F.linear(support, *head), task.support_labels)

    def answer(self, params: Params, task: Task, step: int) -> torch.Tensor:
        """Logits [q, ways] of the queries; prototypes are those of the support in the same context."""
        if self.options.head != "prototypes":
            return super().answer(params, task, step)
        support = self.features(params, task.support, step, recording=True)
        query = self.features(params, task.query, step, recording=False)
        forget_statistics(self.encoder)
        return F.linear(query, *build_prototype_head(support, task.support_labels, task.ways))

    def features(self, params: Params, inputs: torch.Tensor, step: int, *, recording: bool) -> torch.Tensor:
        """Embeddings [n, d] in this context; those of `class` do not depend on it."""
        if self.options.conditioning == "class":
            return super().features(params, inputs, step, recording=recording)
        scale, shift = self.film(params[CONTEXT])
        if not self._norms:
            return scale * super().features(params, inputs, step, recording=recording) + shift
        changed = {}
        for place, norm in enumerate(self._norms):  # what they give is summed: one shift is enough
            weight, bias = params[f"{BODY}{norm}.weight"], params[f"{BODY}{norm}.bias"]
            changed[f"{BODY}{norm}.weight"] = scale * weight
            changed[f"{BODY}{norm}.bias"] = scale * bias if place else scale * bias + shift
        return super().features({**params, **changed}, inputs, step, recording=recording)

    def logits(self, params: Params, inputs: torch.Tensor, step: int, *, recording: bool) -> torch.Tensor:
        """Class logits [n, ways] in this context, by a learned head or by contexts of classes."""
        if self.options.conditioning == "film":
            return super().logits(params, inputs, step, recording=recording)
        seen = self.see(self.features(params, inputs, step, recording=recording))
        joint = F.relu(seen[:, None, :] + self.condition(params[CONTEXT])[None])
        logits: torch.Tensor = self.score(joint)[..., 0]
        return logits


class FiLM(nn.Module):
    """γ and β [channels], linear in a context; 1 and 0 at first where the context is zero (Perez et al. 2018)."""

    def __init__(self, context: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(context, 2 * channels)
        with torch.no_grad():
            self.linear.bias.copy_(torch.cat([torch.ones(channels), torch.zeros(channels)]))

    def forward(self, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Context [length] → γ and β, [channels] each."""
        scale, shift = self.linear(context).chunk(2, dim=-1)
        return scale, shift


def find_norms(encoder: Encoder) -> tuple[str, ...]:
    """Names of the norms whose sum goes into the last activation of the third block: of a residual block those of
    the body and of the shortcut. None in pretrained networks."""
    if not isinstance(encoder, ScratchEncoder):
        return ()
    block = encoder.network[BLOCK]
    norms = [name for name, module in block.named_modules() if isinstance(module, TaskNorm)]
    return tuple(f"network.{BLOCK}.{name}" for name in norms[-2:])
