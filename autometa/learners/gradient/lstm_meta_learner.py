"""The LSTM meta-learner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn
from torch.func import grad_and_value

from autometa.learners.encoder import Encoder
from autometa.learners.gradient.base import GradientLearner, InnerLoop
from autometa.learners.gradient.inner_loop import Params
from autometa.learners.gradient.tasks import Task

P = 10.0
"""Gradients under e^-P are small to the preprocessing."""


FIRST_INPUTS = 4
"""Numbers that gradient and loss become."""


class LSTMMetaLearnerOptions(InnerLoop):
    """Gates start as gradient descent of this `rate`, which keeps the share `kept` of what was before. `hidden`:
    units of the LSTM that sees gradients and losses before the gates do (None: there is none)."""

    hidden: int | None = Field(default=None, ge=1)
    kept: float = Field(default=0.9999, gt=0, lt=1)
    rate: float = Field(default=0.1, gt=0, lt=1)
    first_order: Literal[True] = True
    clip: None = None
    tasks: Literal["auto", "loop", "cores"] = "auto"
    task_memory: None = None


@dataclass(frozen=True)
class Gates:
    """Gates f and i of a parameter, of its shape, and the state of the first LSTM, a row for each coordinate."""

    forget: torch.Tensor
    write: torch.Tensor
    state: tuple[torch.Tensor, torch.Tensor] | None = None


class LSTMMetaLearner(GradientLearner):
    """A learned optimizer: θ_t = f_t ⊙ θ_{t-1} - i_t ⊙ ∇L_t, with gates f and i that see the gradient, the
    loss, θ and their own last value, shared over coordinates; the initial θ is learned (Ravi & Larochelle
    2017). Losses and gradients count as constants of the meta-learner.

    The gates start at f near 1 and i near `rate`: as gradient descent. In the paper they see the output of a first
    LSTM over gradients and losses, with a state for each coordinate: that is `hidden`, 20 there. Its biases start
    between 4 and 5 (f) and between -5 and -4 (i): `kept` 0.989 and `rate` 0.011.
    """

    options_type = LSTMMetaLearnerOptions
    vectorised = False
    options: LSTMMetaLearnerOptions

    def __init__(self, encoder: Encoder, options: LSTMMetaLearnerOptions) -> None:
        super().__init__(encoder, options)
        self.first = nn.LSTMCell(FIRST_INPUTS, options.hidden) if options.hidden else None
        width = (options.hidden or FIRST_INPUTS) + 2
        self.forget, self.input = nn.Linear(width, 1), nn.Linear(width, 1)
        for gate, start in ((self.forget, options.kept), (self.input, options.rate)):
            nn.init.zeros_(gate.weight)
            nn.init.constant_(gate.bias, math.log(start / (1 - start)))

    def adapt(self, task: Task, steps: int) -> list[Params]:
        """Parameters before and after every step of the learned optimizer."""
        path = [self.initial(task)]
        names = [name for name in path[0] if self.is_moving(name)]
        gates: dict[str, Gates] = {}
        for step in range(steps):
            params = path[-1]
            constants = {name: tensor.detach() for name, tensor in params.items()}

            def loss(part: Params, step: int = step, constants: Params = constants) -> torch.Tensor:
                logits = self.logits({**constants, **part}, task.support, step, recording=True)
                return F.cross_entropy(logits, task.support_labels)

            gradients, value = grad_and_value(loss)({name: constants[name] for name in names})
            moved = {}
            for name, gradient in gradients.items():
                own = self.gates(gradient.detach(), value.detach(), params[name], gates.get(name))
                gates[name] = own
                moved[name] = own.forget * params[name] - own.write * gradient.detach()
            path.append({**params, **moved})
        return path

    def gates(
        self, gradient: torch.Tensor, loss: torch.Tensor, value: torch.Tensor, last: Gates | None
    ) -> Gates:
        """Gates f and i for every coordinate of a parameter, after those of the `last` step (None: there was
        none)."""
        last = last or Gates(torch.ones_like(gradient), torch.full_like(gradient, self.options.rate))
        seen, vectors, state = [*preprocess_gradient(gradient), *preprocess_gradient(loss)], None, None
        if self.first is not None:
            inputs = torch.stack([part.expand_as(gradient) for part in seen], dim=-1)
            state = self.first(inputs.flatten(0, -2), last.state)
            seen, vectors = [], state[0].view(*gradient.shape, -1)
        forget, write = (
            torch.sigmoid(_apply_to_parts(gate, vectors, [*seen, value, before]))
            for gate, before in ((self.forget, last.forget), (self.input, last.write))
        )
        return Gates(forget, write, state)


def _apply_to_parts(
    layer: nn.Linear, vectors: torch.Tensor | None, parts: list[torch.Tensor]
) -> torch.Tensor:
    """A layer with one output [...] on `vectors` [..., k], where there are any, and further numbers, `parts` [...]:
    stacking those would take most of the time."""
    weights, result = layer.weight[0], layer.bias[0]
    if vectors is not None:
        result = result + vectors @ weights[: -len(parts)]
    for weight, part in zip(weights[-len(parts) :], parts, strict=True):
        result = result + weight * part
    return result


def preprocess_gradient(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(log|x| / p, sign x) where |x| ≥ e^-p, else (-1, e^p x) (Andrychowicz et al. 2016, appendix A)."""
    large = x.abs() >= math.exp(-P)
    size = torch.where(large, x.abs().clamp(min=1e-30).log() / P, -torch.ones_like(x))
    return size, torch.where(large, x.sign(), math.exp(P) * x)
