"""Meta networks: slow weights, and fast weights that other networks make of gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from autometa.heads.features import unit
from autometa.learners.encoder import Encoder
from autometa.learners.gradient.lstm_meta_learner import preprocess_gradient
from autometa.learners.memory.base import MemoryLearner, MemoryOptions, Sequences

SAME = 10.0
"""Two images are taken for one class with probability σ(SAME (cosine - 1/2))."""
SMALL = 0.1
"""How far fast weights are from zero at first: of the usual size."""

Weights = tuple[torch.Tensor, torch.Tensor]
"""Of the two layers of the embedding, [..., hidden, d] and [..., hidden, hidden]."""


class MetaNetworksOptions(MemoryOptions):
    """Options of `MetaNetworks`, explained there."""

    readings: int = Field(default=2, ge=1)
    hidden: int = Field(default=32, ge=1)
    samples: int = Field(default=3, ge=1)
    units: int = Field(default=10, ge=2)
    sharpness: float = Field(default=10.0, gt=0)
    learn_sharpness: bool = True


class FastEmbedding(nn.Module):
    """F_w: the gradients of an embedding loss, one after the other → a fast weight for every slow one. One
    LSTM of `units` for all coordinates (Munkhdalai & Yu 2017, §3.1)."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(2, units), nn.Linear(units, 1, bias=False)
        with torch.no_grad():
            self.out.weight.mul_(SMALL)

    def forward(self, gradients: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Gradients [b, t, n, m], those that are `real` bool [b, t] → fast weights [b, n, m]."""
        hidden = cell = gradients.new_zeros(gradients[:, 0].numel(), self.cell.hidden_size)
        for gradient, known in zip(gradients.unbind(1), real.unbind(1), strict=True):
            seen = torch.stack(preprocess_gradient(gradient), dim=-1).flatten(0, -2)
            moved = self.cell(seen, (hidden, cell))
            rows = known.repeat_interleave(gradient[0].numel())[:, None]
            hidden, cell = (
                torch.where(rows, new, old) for new, old in zip(moved, (hidden, cell), strict=True)
            )
        fast: torch.Tensor = self.out(hidden)
        return fast.view_as(gradients[:, 0])


class FastBase(nn.Module):
    """G_v: the gradient of the base learner's loss of one image → its fast weights, coordinate by coordinate
    (Munkhdalai & Yu 2017, §3.2). It starts close to a small step against the sign of the gradient, from which a
    query finds the class of the image that it is most like."""

    def __init__(self, units: int) -> None:
        super().__init__()
        into, out = nn.Linear(2, units), nn.Linear(units, 1, bias=False)
        against = torch.ones(units)
        against[::2] = -1
        with torch.no_grad():
            into.weight[:, 0].mul_(SMALL)
            into.weight[:, 1] = against
            into.bias.zero_()
            out.weight[0] = -SMALL * against
        self.network = nn.Sequential(into, nn.ReLU(), out)

    def forward(self, gradients: torch.Tensor) -> torch.Tensor:
        """Gradients of any shape → fast weights of that shape."""
        fast: torch.Tensor = self.network(torch.stack(preprocess_gradient(gradients), dim=-1))
        return fast[..., 0]


class MetaNetworks(MemoryLearner):
    """A base learner and an embedding, each with slow weights and with fast ones for the task (Munkhdalai & Yu
    2017).

    The embedding's fast weights θ⁺ are made of the gradients of a verification loss (is this image of the same
    class as that one?) of `samples` support images against all. Each support image x_i has a key
    r_i = f_{θ,θ⁺}(x_i), and for a value the base learner's fast weights φ⁺_i, made of the gradient of its
    own loss. A query is answered with φ⁺ = Σ_i a_i φ⁺_i, a = softmax(β cos(r_i, r)). Gradients count as
    constants. β is learned, from `sharpness` on, unless `learn_sharpness` is off; the paper has β = 1.

    Both work on what the encoder gives, which has slow weights alone. The embedding has two layers of `hidden`
    units, each augmented: slow and fast outputs are added after the activation. The base learner has a layer
    of `hidden` units and an augmented last one. `units` are those of the networks that make fast weights.
    """

    options_type = MetaNetworksOptions
    scales = ("log_sharpness",)

    def __init__(self, encoder: Encoder, options: MetaNetworksOptions) -> None:
        super().__init__(encoder, options)
        self.samples = options.samples
        hidden = options.hidden
        self.first = nn.Linear(self.width, hidden, bias=False)
        self.second = nn.Linear(hidden, hidden, bias=False)
        self.base = nn.Linear(self.width, hidden)
        self.answer = nn.Linear(hidden, self.max_ways)
        self.fast_embedding = FastEmbedding(options.units)
        self.fast_base = FastBase(options.units)
        self.log_sharpness = nn.Parameter(
            torch.tensor(options.sharpness).log(), requires_grad=options.learn_sharpness
        )

    def read(self, sequences: Sequences) -> torch.Tensor:
        """Logits [b, q, max_ways] of the queries."""
        fast = self.fast_weights(sequences)
        keys, values = self.embedding(sequences.support, fast), self.values(sequences)
        cosine = unit(self.embedding(sequences.query, fast)) @ unit(keys).transpose(1, 2)
        match = self.log_sharpness.exp() * cosine  # masked afterwards: infinities have no gradient
        attention = match.masked_fill(~sequences.real[:, None, :], float("-inf")).softmax(-1)
        own = (attention @ values.flatten(2)).unflatten(2, values.shape[2:])
        seen = self.seen(sequences.query)
        logits: torch.Tensor = self.answer(seen) + (own @ seen[..., None])[..., 0]
        return logits

    def embedding(self, x: torch.Tensor, fast: Weights) -> torch.Tensor:
        """f_{θ,θ⁺}: images [b, m, d] → [b, m, hidden]; fast weights one for each task."""
        x = self.first(x).relu() + (x @ fast[0].transpose(1, 2)).relu()
        slow: torch.Tensor = self.second(x)
        return slow + x @ fast[1].transpose(1, 2)

    def seen(self, x: torch.Tensor) -> torch.Tensor:
        """The base learner's hidden layer [..., hidden]."""
        hidden: torch.Tensor = self.base(x).relu()
        return hidden

    def fast_weights(self, sequences: Sequences) -> Weights:
        """θ⁺ for both layers, [b, hidden, d] and [b, hidden, hidden]."""
        slow = (self.first.weight.detach(), self.second.weight.detach())
        gradients = embedding_gradients(sequences, slow, self.samples)
        real = sequences.real[:, -self.samples :]
        first, second = (self.fast_embedding(part, real) for part in gradients)
        return first, second

    def values(self, sequences: Sequences) -> torch.Tensor:
        """φ⁺_i of each support image, [b, s, max_ways, hidden]."""
        with torch.no_grad():
            seen = self.seen(sequences.support)
            used = sequences.labels.any(1, keepdim=True)
            logits = self.answer(seen).masked_fill(~used, float("-inf"))
            wrong = logits.softmax(-1) - sequences.labels
            gradients = wrong[..., None] * seen[..., None, :]
        values: torch.Tensor = self.fast_base(gradients)
        return values


def embedding_gradients(sequences: Sequences, slow: Weights, samples: int) -> Weights:
    """Gradients of the verification loss of each of the last `samples` support images by the weights of both
    layers: [b, t, hidden, d] and [b, t, hidden, hidden], without fast weights; zero for padding."""
    with torch.enable_grad():
        x = sequences.support.detach()
        weights = [part.expand(len(x), *part.shape).clone().requires_grad_() for part in slow]
        r = (x @ weights[0].transpose(1, 2)).relu() @ weights[1].transpose(1, 2)
        losses = verification(r, sequences.labels, sequences.real)[:, -samples:].sum(0)
        found = [torch.autograd.grad(loss, weights, retain_graph=True) for loss in losses.unbind(0)]
    first, second = (torch.stack(part, dim=1) for part in zip(*found, strict=True))
    return first, second


def verification(r: torch.Tensor, labels: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Loss [b, s] of each image: the mean cross-entropy of whether it is of one class with the others. Of one
    class are pairs of embeddings r [b, s, h] with probability σ(SAME (cosine - 1/2)); zero for padding."""
    normal = F.normalize(r, dim=-1, eps=1e-3)
    logits = SAME * (normal @ normal.transpose(1, 2) - 0.5)
    loss = F.binary_cross_entropy_with_logits(logits, labels @ labels.transpose(1, 2), reduction="none")
    s = labels.shape[1]
    pairs = real[:, :, None] & real[:, None, :] & ~torch.eye(s, dtype=torch.bool, device=real.device)
    return (loss * pairs).sum(-1) / pairs.sum(-1).clamp(min=1)
