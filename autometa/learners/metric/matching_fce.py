"""Matching networks with full context embeddings."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from autometa.heads import FeatureBatch
from autometa.learners.encoder import Encoder
from autometa.learners.metric.base import Unlabelled
from autometa.learners.metric.matching import Matching, MatchingOptions

WIDEST = 256
"""Above this width of an embedding, the LSTMs see it through a projection of this width."""


class MatchingFCEOptions(MatchingOptions):
    """Options of `MatchingFCE`, explained there."""

    steps: int = Field(default=5, ge=1)


class MatchingFCE(Matching):
    """Matching networks whose embeddings see the support set (Vinyals et al. 2016, §2.1.2 and appendix A):
    g by a bidirectional LSTM over the support, f by an LSTM that attends to it in `steps` reads. In training
    the support comes in random order."""

    options_type = MatchingFCEOptions

    def __init__(self, encoder: Encoder, options: MatchingFCEOptions) -> None:
        super().__init__(encoder, options)
        self.steps = options.steps
        self.hidden = min(self.width, WIDEST)
        narrow = self.hidden < self.width
        self.reduce = nn.Linear(self.width, self.hidden, bias=False) if narrow else nn.Identity()
        self.widen = nn.Linear(self.hidden, self.width, bias=False) if narrow else nn.Identity()
        self.context = nn.LSTM(self.hidden, self.hidden, batch_first=True, bidirectional=True)
        self.reader = nn.LSTMCell(self.hidden, 2 * self.hidden)

    def compare(self, batch: FeatureBatch, unlabelled: Unlabelled | None = None) -> torch.Tensor:
        """Scores [b, q, n]: log p."""
        support = self._embed_support(batch)
        return self.attend(self._embed_query(batch.query, support, batch), support, batch)

    def _embed_support(self, batch: FeatureBatch) -> torch.Tensor:
        """g(x_i, S) = h→_i + h←_i + f'(x_i), [b, s, d]; images are read as they come, or shuffled in training."""
        keys = (
            torch.rand(batch.support_mask.shape, device=batch.support_mask.device)
            if self.training
            else batch.support_mask * 0.0
        )
        order = (keys + ~batch.support_mask * 2.0).argsort(dim=1, stable=True)  # images first, then padding
        places = order[..., None].expand_as(batch.support)
        sequence = self.reduce(batch.support.gather(1, places))
        lengths = batch.support_mask.sum(1).cpu()
        packed = pack_padded_sequence(sequence, lengths, batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(
            self.context(packed)[0], batch_first=True, total_length=sequence.shape[1]
        )
        forwards, backwards = outputs.chunk(2, dim=-1)
        seen = torch.zeros_like(batch.support).scatter(
            1, places, self.widen(forwards + backwards).to(batch.support.dtype)
        )
        return (batch.support + seen) * batch.support_mask[..., None]

    def _embed_query(self, query: torch.Tensor, support: torch.Tensor, batch: FeatureBatch) -> torch.Tensor:
        """f(x, S) after so many reads, [b, q, d]: ĥ, c = LSTM(f'(x), [h, r], c); h = ĥ + f'(x);
        r = Σ softmax(hᵀ g(x_i)) g(x_i)."""
        b, q, _ = query.shape
        seen, keys = self.reduce(query), self.reduce(support)
        hidden = read = torch.zeros_like(seen)
        cell = query.new_zeros(b * q, 2 * self.hidden)
        for _ in range(self.steps):
            state = torch.cat([hidden, read], dim=-1).flatten(0, 1)
            state, cell = self.reader(seen.flatten(0, 1), (state, cell))
            hidden = state[:, : self.hidden].unflatten(0, (b, q)) + seen
            match = (hidden @ keys.transpose(1, 2)).masked_fill(
                ~batch.support_mask[:, None, :], float("-inf")
            )
            read = match.softmax(-1) @ keys
        return query + self.widen(hidden - seen)
