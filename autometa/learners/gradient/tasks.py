"""One task of a batch of episodes, and a batch answered task by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.func import functional_call

from autometa.core.machine import CPU
from autometa.heads import FeatureBatch
from autometa.learners.encoder import Encoder
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.parallel import map_on_cores

AnyModule = TypeVar("AnyModule", bound=nn.Module)


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

    def embedded_batch(self, support: torch.Tensor, query: torch.Tensor) -> FeatureBatch:
        """The task as a batch of one, its images given as embeddings: support [s, d] and query [q, d]."""
        ways = torch.tensor([self.ways], device=support.device)
        return FeatureBatch(support[None], self.support_labels[None], query[None], ways)


def answer_each_task(
    learner: AnyModule,
    episodes: InputEpisodes,
    answer: Callable[[AnyModule, Task], torch.Tensor],
    *,
    serial: bool = False,
) -> torch.Tensor:
    """Scores [b, q, n], without gradients, out of what `answer` gives for every task, logits [q, ways]: on all
    cores of a CPU, one after the other on a GPU or where tasks share what they change (`serial`)."""
    b, q = episodes.query_labels.shape
    scores = torch.full((b, q, int(episodes.ways.max())), float("-inf"), device=episodes.query.device)

    def work(own: AnyModule, place: int) -> torch.Tensor:
        return answer(own, Task.of(episodes, place))

    with torch.no_grad():
        serial = serial or episodes.query.device.type != CPU
        answers = (work(learner, place) for place in range(b)) if serial else map_on_cores(learner, work, b)
        for place, logits in enumerate(answers):
            scores[place, episodes.query_labels[place] >= 0, : logits.shape[1]] = logits
    return scores


def embed_with_params(
    encoder: Encoder, params: Mapping[str, torch.Tensor], inputs: torch.Tensor
) -> torch.Tensor:
    """Embeddings [n, d] with these parameters of the encoder in place of its own."""
    body = {f"encoder.{name}": tensor for name, tensor in params.items()}
    vectors: torch.Tensor = functional_call(_Vectors(encoder), body, (inputs,))
    return vectors


class _Vectors(nn.Module):
    """`Encoder.vectors` as the forward of a module."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.encoder.vectors(inputs)
