"""One task of a batch of episodes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from autometa.learners.episodes import InputEpisodes


@dataclass(frozen=True)
class Task:
    """One episode without padding: support inputs [s, ...] and labels [s], query inputs [q, ...] and labels
    [q], ways."""

    support: torch.Tensor
    support_labels: torch.Tensor
    query: torch.Tensor
    query_labels: torch.Tensor
    ways: int

    @classmethod
    def of(cls, episodes: InputEpisodes, place: int) -> Task:
        """The episode at a place of a batch."""
        given, asked = episodes.support_labels[place] >= 0, episodes.query_labels[place] >= 0
        return cls(
            episodes.support[place][given],
            episodes.support_labels[place][given],
            episodes.query[place][asked],
            episodes.query_labels[place][asked],
            int(episodes.ways[place]),
        )
