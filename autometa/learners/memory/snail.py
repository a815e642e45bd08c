"""SNAIL: temporal convolutions and attention over the labelled sequence."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from autometa.learners.encoder import Encoder
from autometa.learners.memory.base import MemoryLearner, MemoryOptions, Sequences

Parts = tuple[torch.Tensor, torch.Tensor]
"""What there is at the places of a support [b, s, c], and at those of the queries [b, q, c], each of which
stands directly after the support."""
ATTENTION = ((64, 32), (256, 128), (512, 256))
"""Widths of keys and values of the attention blocks (Mishra et al. 2018, §5.1)."""


class SNAILOptions(MemoryOptions):
    """Options of `SNAIL`, explained there."""

    layers: int = Field(default=5, ge=1, le=12)
    filters: int = Field(default=32, ge=1)


class SNAIL(MemoryLearner):
    """Attention, temporal convolutions, attention, temporal convolutions, attention, and a linear layer over
    (x_1, y_1), …, (x_s, y_s), (x_query, 0) (Mishra et al. 2018, appendix A).

    Everything is causal, so the support is worked through once for all queries. Convolutions have `layers`
    dilations 1, 2, 4, … of `filters` channels: they see the last 2^layers places, attention all of them. The
    paper has 128 filters, and as many layers as its one length of sequence needs; here lengths vary.
    """

    options_type = SNAILOptions

    def __init__(self, encoder: Encoder, options: SNAILOptions) -> None:
        super().__init__(encoder, options)
        channels = self.width + self.max_ways
        self.blocks = nn.ModuleList()
        for number, (key, value) in enumerate(ATTENTION):
            if number:
                for layer in range(options.layers):
                    self.blocks.append(DenseBlock(channels, options.filters, 2**layer))
                    channels += options.filters
            self.blocks.append(AttentionBlock(channels, key, value))
            channels += value
        self.answer = nn.Linear(channels, self.max_ways)

    def read(self, sequences: Sequences) -> torch.Tensor:
        """Logits [b, q, max_ways] of the queries."""
        return self.answer(self.run(sequences)[1])

    def run(self, sequences: Sequences) -> Parts:
        """What the last block gives for the support [b, s, c] and for the queries [b, q, c]."""
        support, query = sequences.labelled, sequences.asked
        for block in self.blocks:
            support, query = block(support, query, sequences.real)
        return support, query


class DenseBlock(nn.Module):
    """A gated causal convolution of two taps, `dilation` places apart, appended to its input: c channels
    become c + filters."""

    def __init__(self, channels: int, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.now = nn.Linear(channels, 2 * filters)
        self.before = nn.Linear(channels, 2 * filters, bias=False)

    def forward(self, support: torch.Tensor, query: torch.Tensor, real: torch.Tensor) -> Parts:
        """Padding, which comes first, is zero and stays so, as are places before the first."""
        s = support.shape[1]
        earlier = F.pad(self.before(support), (0, 0, self.dilation, 0))
        at_support = apply_gate(self.now(support) + earlier[:, :s]) * real[..., None]
        at_query = apply_gate(self.now(query) + earlier[:, s : s + 1])
        return torch.cat([support, at_support], dim=-1), torch.cat([query, at_query], dim=-1)


class AttentionBlock(nn.Module):
    """Soft attention of every place to itself and those before it, appended to its input: c channels become
    c + value. Queries start as the keys, so at first like attends to like."""

    def __init__(self, channels: int, key: int, value: int) -> None:
        super().__init__()
        self.key, self.ask = nn.Linear(channels, key), nn.Linear(channels, key)
        self.ask.load_state_dict(self.key.state_dict())
        self.value = nn.Linear(channels, value)

    def forward(self, support: torch.Tensor, query: torch.Tensor, real: torch.Tensor) -> Parts:
        """Padding is seen by nobody and reads zero."""
        s = support.shape[1]
        keys, values = self.key(support), self.value(support)
        past = torch.ones(s, s, dtype=torch.bool, device=real.device).tril()
        seen = (past & real[:, None, :]) | torch.eye(s, dtype=torch.bool, device=real.device)
        at_support = F.scaled_dot_product_attention(self.ask(support), keys, values, attn_mask=seen)
        asked = self.ask(query)
        match = (asked @ keys.transpose(1, 2)).masked_fill(~real[:, None, :], float("-inf"))
        own = (asked * self.key(query)).sum(-1, keepdim=True)
        attention = (torch.cat([match, own], dim=-1) / math.sqrt(keys.shape[-1])).softmax(-1)
        at_query = attention[..., :s] @ values + attention[..., s:] * self.value(query)
        return torch.cat([support, at_support * real[..., None]], -1), torch.cat([query, at_query], -1)


def apply_gate(both: torch.Tensor) -> torch.Tensor:
    """tanh of the first half of the channels, times σ of the second."""
    values, gates = both.chunk(2, dim=-1)
    return values.tanh() * gates.sigmoid()
