"""Training on the support of one task: parameters in, other parameters out, nothing stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import nn
from torch.func import functional_call

from autometa.learners.base import EpisodicLearner
from autometa.learners.encoder import Encoder
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.parallel import on_all_cores
from autometa.learners.gradient.tasks import Task

Params = dict[str, torch.Tensor]
Scope = Literal["last_blocks", "all"]
AnyLearner = TypeVar("AnyLearner", bound=EpisodicLearner)

LAST_BLOCKS = 2
EPSILON = 1e-5
"""Of Adam: more than rounding, which it would blow up where a gradient is zero."""
CHUNK = 256
"""Images that are embedded at a time where nothing is trained."""


def tuned(
    loss: Callable[[Params], torch.Tensor], start: Params, rate: Callable[[str], float], steps: int
) -> Params:
    """Parameters after `steps` of Adam on `loss`, each with the rate that `rate` gives for its name; `start`
    stays as it is."""
    moved = {name: tensor.detach().clone().requires_grad_() for name, tensor in start.items()}
    groups = [{"params": [tensor], "lr": rate(name)} for name, tensor in moved.items()]
    optimizer = torch.optim.Adam(groups, eps=EPSILON)
    for _ in range(steps):
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss(moved), list(moved.values()))
        for tensor, gradient in zip(moved.values(), gradients, strict=True):
            tensor.grad = gradient
        optimizer.step()
    return {name: tensor.detach() for name, tensor in moved.items()}


def each_task(
    learner: AnyLearner, episodes: InputEpisodes, answer: Callable[[AnyLearner, Task], torch.Tensor]
) -> torch.Tensor:
    """Scores [b, q, n] out of what `answer` gives for every task, logits [q, ways]: on all cores of a CPU,
    one after the other on a GPU."""
    b, q = episodes.query_labels.shape
    scores = torch.full((b, q, int(episodes.ways.max())), float("-inf"), device=episodes.query.device)

    def work(own: AnyLearner, place: int) -> torch.Tensor:
        return answer(own, Task.of(episodes, place))

    with torch.no_grad():
        serial = episodes.query.is_cuda
        answers = (work(learner, place) for place in range(b)) if serial else on_all_cores(learner, work, b)
        for place, logits in enumerate(answers):
            scores[place, episodes.query_labels[place] >= 0, : logits.shape[1]] = logits
    return scores


class _Vectors(nn.Module):
    """`Encoder.vectors` as the forward of a module."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.encoder.vectors(inputs)


def embedded(encoder: Encoder, params: Params, inputs: torch.Tensor, *, whole: bool = False) -> torch.Tensor:
    """Embeddings [n, d] with these parameters of the encoder in place of its own; in chunks where no
    gradients are asked for, unless the `whole` is needed for its statistics."""
    body = {f"encoder.{name}": tensor for name, tensor in params.items()}
    parts = [inputs] if whole or torch.is_grad_enabled() else inputs.split(CHUNK)
    vectors = [functional_call(_Vectors(encoder), body, (part,)) for part in parts]
    return torch.cat(vectors)


def scoped(encoder: Encoder, scope: Scope) -> Params:
    """The trained parameters of an encoder, by name: all, or those of its last blocks. Of a frozen backbone
    that is its adapter either way."""
    names = tuple(blocks_of(encoder)[-LAST_BLOCKS:]) if scope == "last_blocks" else ("",)
    return {n: p for n, p in encoder.named_parameters() if p.requires_grad and n.startswith(names)}


def blocks_of(module: nn.Module, prefix: str = "") -> list[str]:
    """Prefixes of the names of the parameters of each block of a network, first to last: its children, or
    those of an only child."""
    children = [(n, child) for n, child in module.named_children() if any(True for _ in child.parameters())]
    if not children:
        return [prefix]
    if len(children) == 1:
        return blocks_of(children[0][1], f"{prefix}{children[0][0]}.")
    return [f"{prefix}{name}." for name, _ in children]
