"""Memory-augmented neural networks."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from autometa.heads.features import unit
from autometa.learners.encoder import Encoder
from autometa.learners.memory.base import MemoryLearner, MemoryOptions, Sequences

ASKED = 1024 * 128 * 40
"""Numbers of copies of a memory that are asked at a time outside training."""
FULL = 0.1
"""Length under which a row counts as partly empty: its cosine is less by as much. Rows would else match as soon
as a trace of a key is written to them."""

FORGETFUL = -2.0
EAGER = 2.0
"""What the first bias of the forget gate is moved by, and how many times the usual size the first weights of the
input are: keys then depend on the present image, not on those before it, and like images get like keys."""
CLOSED = -3.0
"""The first α of the learner: keys go to rows not used yet. With a label beside each image there is nothing to
add to the row that was read last."""


class MANNOptions(MemoryOptions):
    """Options of `MANN`, explained there."""

    controller: int = Field(default=200, ge=1)
    rows: Annotated[int, Field(ge=1)] | Literal["task"] = 128
    row_width: int = Field(default=40, ge=1)
    heads: int = Field(default=4, ge=1)
    usage_decay: float = Field(default=0.95, ge=0, le=1)
    sharpness: float = Field(default=10.0, gt=0)
    learn_sharpness: bool = True
    read: Literal["before", "after"] = "before"
    own_rows: bool = False

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.rows != "task" and self.heads > self.rows:
            raise ValueError(f"{self.heads} heads write to as many rows: give the memory that many rows")
        return self


@dataclass(frozen=True)
class State:
    """What there is between two steps of b sequences: the memory [b, rows, width] and which rows a sequence has,
    bool [b, rows], read weights [b, heads, rows], usage [b, rows], what was read [b, heads · width], hidden and cell
    state [b, controller]."""

    memory: torch.Tensor
    present: torch.Tensor
    weights: torch.Tensor
    usage: torch.Tensor
    read: torch.Tensor
    hidden: torch.Tensor
    cell: torch.Tensor

    def where(self, real: torch.Tensor, old: State) -> State:
        """This state for the sequences that are `real` [b], the old one for the others."""
        pairs = ((getattr(self, f.name), getattr(old, f.name)) for f in fields(self))
        return State(*(torch.where(real.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))

    def copies(self, n: int) -> State:
        """n copies of each sequence's state, one after the other."""
        return State(*(getattr(self, f.name).repeat_interleave(n, 0) for f in fields(self)))


class MemoryNetwork(nn.Module):
    """An LSTM controller with a memory that is read by content and written where it was least recently used
    (Santoro et al. 2016, §3).

    A step gives the controller the input and what was read last; of its state h_t each head makes a key k_t and a
    gate α. Then it writes: w^w_t = σ(α) w^r_{t-1} + (1 - σ(α)) w^lu_{t-1}, where w^lu is 1 at the rows, as many as
    there are heads, of least usage, or with `own_rows`, of the h-th head, at the h-th of them; these are zeroed,
    then M_t(i) = M_{t-1}(i) + w^w_t(i) k_t, summed over heads. Each head reads with weights w^r_t = softmax(β
    cos(k_t, M(i))) from the memory M as it was before that, or as it is after; the paper does not say which, but
    after it a key finds itself first, and nothing was learned where labels come late. Last, w^u_t = γ w^u_{t-1} +
    w^r_t + w^w_t. The paper has β = 1. The controller starts with little memory of its own (`FORGETFUL`, `EAGER`).
    """

    def __init__(self, inputs: int, options: MANNOptions) -> None:
        super().__init__()
        self.options = options
        self.read_width = options.heads * options.row_width
        self.controller = nn.LSTMCell(inputs + self.read_width, options.controller)
        with torch.no_grad():
            self.controller.bias_ih[options.controller : 2 * options.controller] += FORGETFUL
            self.controller.weight_ih *= EAGER
        self.keys = nn.Linear(options.controller, self.read_width)
        nn.init.orthogonal_(self.keys.weight)
        self.gates = nn.Linear(options.controller, options.heads)
        start = torch.full((options.heads,), options.sharpness)
        self.log_sharpness = nn.Parameter(start.log(), requires_grad=options.learn_sharpness)

    @property
    def width(self) -> int:
        """Length of an output."""
        return self.options.controller + self.read_width

    def start(self, steps: torch.Tensor) -> State:
        """The state before the first step of sequences of so many `steps` [b]: an empty memory."""
        o, zeros, b = self.options, self.gates.weight.new_zeros, len(steps)
        own = o.heads * steps if o.rows == "task" else torch.full_like(steps, o.rows)
        rows = int(own.max())
        present = torch.arange(rows, device=steps.device) < own[:, None]
        memory, weights = zeros(b, rows, o.row_width), zeros(b, o.heads, rows)
        hidden = zeros(b, o.controller)
        return State(memory, present, weights, zeros(b, rows), zeros(b, self.read_width), hidden, hidden)

    def step(self, x: torch.Tensor, last: State) -> State:
        """The state after an input [b, inputs]."""
        hidden, cell = self.controller(torch.cat([x, last.read], dim=-1), (last.hidden, last.cell))
        keys = self.keys(hidden).tanh().unflatten(1, (self.options.heads, -1))
        gates = self.gates(hidden).sigmoid()[..., None]
        least = mark_least_used(last.usage.masked_fill(~last.present, math.inf), self.options.heads)
        emptied = least.sum(1)
        if not self.options.own_rows:
            least = emptied[:, None]
        writes = gates * last.weights + (1 - gates) * least
        kept = last.memory * (1 - emptied)[..., None]
        memory = torch.baddbmm(kept, writes.transpose(1, 2), keys)
        read_from = last.memory if self.options.read == "before" else memory
        weights = address_by_content(keys, read_from, self.log_sharpness.exp(), last.present)
        usage = self.options.usage_decay * last.usage + (weights + writes).sum(1)
        return State(memory, last.present, weights, usage, (weights @ read_from).flatten(1), hidden, cell)

    def ask(self, x: torch.Tensor, last: State) -> torch.Tensor:
        """Outputs [b, q, width] of a further step with each of the inputs [b, q, inputs], each on the state that it
        finds; where that is read before it is written, nothing needs to be written."""
        b, q = x.shape[:2]
        if self.options.read == "after":
            return self.output(self.step(x.flatten(0, 1), last.copies(q))).unflatten(0, (b, q))
        seen = torch.cat([x, last.read[:, None].expand(-1, q, -1)], dim=-1).flatten(0, 1)
        own = last.hidden.repeat_interleave(q, 0), last.cell.repeat_interleave(q, 0)
        hidden = self.controller(seen, own)[0]
        keys = self.keys(hidden).tanh().view(b, q * self.options.heads, -1)
        sharpness = self.log_sharpness.exp().repeat(q)
        weights = address_by_content(keys, last.memory, sharpness, last.present)
        return torch.cat([hidden.view(b, q, -1), (weights @ last.memory).view(b, q, -1)], dim=-1)

    def output(self, state: State) -> torch.Tensor:
        """What a classifier sees, [b, width]: the controller's state and what was read."""
        return torch.cat([state.hidden, state.read], dim=-1)


def mark_least_used(usage: torch.Tensor, n: int) -> torch.Tensor:
    """The n rows of least usage [b, rows], the least first (of equals the first), as rows [b, n, rows] that are 1
    there, else 0; no gradient goes through."""
    order = usage.detach().argsort(dim=1, stable=True)[:, :n]
    return nn.functional.one_hot(order, usage.shape[1]).to(usage.dtype)


def address_by_content(
    keys: torch.Tensor, memory: torch.Tensor, sharpness: torch.Tensor, present: torch.Tensor
) -> torch.Tensor:
    """Weights [b, heads, rows] of a memory [b, rows, width] for keys [b, heads, width]: the softmax over the rows
    that are `present` bool [b, rows] of the cosine, times a sharpness for each head [heads]; an empty row has
    cosine 0 (see `FULL`)."""
    lengths = torch.linalg.vector_norm(memory, dim=-1).clamp(min=FULL)
    cosine = unit(keys) @ memory.transpose(1, 2) / lengths[:, None]
    return (sharpness[:, None] * cosine).masked_fill(~present[:, None], -math.inf).softmax(-1)


class MANN(MemoryLearner):
    """A `MemoryNetwork` over the support, label beside image, with a linear layer that answers (Santoro et al.
    2016). A query is a further step without a label on a copy of the state.

    The paper's own protocol, where a label comes one step late, is `examples/mann_instances.py`. The
    controller has `controller` units, the memory `rows` of `row_width`, or `task`: as many as the heads write to in a
    task, one each for every image of its support and for a query. It has so many `heads`, which `read` before or
    after it is written; usage decays by `usage_decay`. β is learned for each head, from `sharpness` on,
    unless `learn_sharpness` is off.
    """

    options_type = MANNOptions
    scales = ("network.log_sharpness",)

    def __init__(self, encoder: Encoder, options: MANNOptions) -> None:
        super().__init__(encoder, options)
        self.network = MemoryNetwork(self.width + self.max_ways, options)
        nn.init.constant_(self.network.gates.bias, CLOSED)
        self.answer = nn.Linear(self.network.width, self.max_ways)

    def read(self, sequences: Sequences) -> torch.Tensor:
        """Logits [b, q, max_ways] of the queries."""
        state = self.remember(sequences)
        queries = sequences.asked
        at_once = queries.shape[1] if self.training else max(ASKED // state.memory.numel(), 1)
        logits = []
        for part in queries.split(at_once, dim=1):
            logits.append(self.answer(self.network.ask(part, state)))
        return torch.cat(logits, dim=1)

    def remember(self, sequences: Sequences) -> State:
        """The state after the support."""
        state = self.network.start(sequences.real.sum(1) + 1)
        padded = not bool(sequences.real.all())
        for x, real in zip(sequences.labelled.unbind(1), sequences.real.unbind(1), strict=True):
            after = self.network.step(x, state)
            state = after.where(real, state) if padded else after
        return state
