"""Training on the support of one task: parameters in, other parameters out, nothing stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from autometa.learners.encoder import Encoder
from autometa.learners.gradient.tasks import Task, embed_with_params
from autometa.learners.optimizers import Adam

Params = dict[str, torch.Tensor]
Scope = Literal["last_blocks", "all"]

BODY = "body."
"""Before the names of the encoder's parameters, where a head is trained with them."""
LAST_BLOCKS = 2
EPSILON = 1e-5
"""Of Adam: more than rounding, which it would blow up where a gradient is zero."""
CHUNK = 256
"""Images that are embedded at a time where nothing is trained."""


def train_on_support(
    loss: Callable[[Params], torch.Tensor], start: Params, rate: Callable[[str], float], steps: int
) -> Params:
    """Parameters after `steps` of Adam on `loss`, each with the rate that `rate` gives for its name; `start`
    stays as it is."""
    moved = {name: tensor.detach().clone().requires_grad_() for name, tensor in start.items()}
    groups = [{"params": [tensor], "lr": rate(name)} for name, tensor in moved.items()]
    optimizer = Adam(groups, eps=EPSILON)
    for _ in range(steps):
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss(moved), list(moved.values()))
        for tensor, gradient in zip(moved.values(), gradients, strict=True):
            tensor.grad = gradient
        optimizer.step()
    return {name: tensor.detach() for name, tensor in moved.items()}


def add_head(body: Params, width: int, task: Task) -> Params:
    """Parameters of an encoder, and a linear head of zeros over embeddings of this width for the classes of a
    task: from zero, no order of them is special."""
    zeros = torch.zeros(task.ways, width + 1, device=task.support.device)
    head = {"head.weight": zeros[:, 1:], "head.bias": zeros[:, 0]}
    return head | {BODY + name: p for name, p in body.items()}


def extract_body(params: Params) -> Params:
    """The encoder's parameters among those of `add_head`, by their own names."""
    return {name.removeprefix(BODY): p for name, p in params.items() if name.startswith(BODY)}


def compute_logits(params: Params, features: torch.Tensor) -> torch.Tensor:
    """Logits [n, ways] that the head gives for embeddings [n, d]."""
    return F.linear(features, params["head.weight"], params["head.bias"])


def embed_in_parts(
    encoder: Encoder, params: Params, inputs: torch.Tensor, *, whole: bool = False
) -> torch.Tensor:
    """Embeddings [n, d] with these parameters of the encoder in place of its own; in chunks where no
    gradients are asked for, unless the `whole` is needed for its statistics."""
    parts = [inputs] if whole or torch.is_grad_enabled() else inputs.split(CHUNK)
    return torch.cat([embed_with_params(encoder, params, part) for part in parts])


def select_params(encoder: Encoder, scope: Scope) -> Params:
    """The trained parameters of an encoder, by name: all, or those of its last blocks. Of a frozen backbone
    that is its adapter either way."""
    names = tuple(list_blocks(encoder)[-LAST_BLOCKS:]) if scope == "last_blocks" else ("",)
    return {n: p for n, p in encoder.named_parameters() if p.requires_grad and n.startswith(names)}


def list_blocks(module: nn.Module, prefix: str = "") -> list[str]:
    """Prefixes of the names of the parameters of each block of a network, first to last: its children, or
    those of an only child."""
    children = [(n, child) for n, child in module.named_children() if any(True for _ in child.parameters())]
    if not children:
        return [prefix]
    if len(children) == 1:
        return list_blocks(children[0][1], f"{prefix}{children[0][0]}.")
    return [f"{prefix}{name}." for name, _ in children]
