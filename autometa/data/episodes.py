"""Episodes: first a cheap description (row numbers of an image pool), then batches of padded indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autometa.core.errors import DataError
from autometa.data.images import ImagePool, Rows

DIRICHLET = 2.0
"""Concentration of the shares of classes among unbalanced queries."""


@dataclass(frozen=True)
class EpisodeSpec:
    """The form of episodes: any number of ways and shots within the bounds, `queries_per_class` each; where
    queries are not `balanced`, as many in all, but shared out among the classes at random."""

    ways: tuple[int, int] = (2, 20)
    shots: tuple[int, int] = (1, 20)
    queries_per_class: int = 20
    balanced: bool = True

    @property
    def mean_images(self) -> float:
        """Images of an average episode."""
        return sum(self.ways) / 2 * (sum(self.shots) / 2 + self.queries_per_class)


@dataclass(frozen=True)
class Episode:
    """One N-way k-shot episode as rows of a pool: support [ways * shots] and query [ways * queries] rows,
    each with labels 0..ways-1."""

    ways: int
    shots: int
    support_rows: Rows
    support_labels: Rows
    query_rows: Rows
    query_labels: Rows
    dataset: int


def sample_episodes(
    pool: ImagePool, classes: Rows, spec: EpisodeSpec, n: int, rng: np.random.Generator
) -> list[Episode]:
    """`n` episodes over `classes`, each within one dataset; bounds that the data can not meet are clamped.

    Raises DataError where no dataset has two classes of at least two images.
    """
    groups = [classes[pool.dataset_of_class[classes] == d] for d in range(len(pool.datasets))]
    groups = [_big_enough(pool, group) for group in groups]
    usable = [group for group in groups if len(group) >= 2]
    if not usable:
        raise DataError("no dataset has two classes with two images each: no episode can be drawn")
    return [_sample_episode(pool, usable[i % len(usable)], spec, rng) for i in range(n)]


def _big_enough(pool: ImagePool, classes: Rows) -> Rows:
    return np.array([c for c in classes if len(pool.rows_of_class[c]) >= 2], dtype=np.int64)


def _sample_episode(pool: ImagePool, group: Rows, spec: EpisodeSpec, rng: np.random.Generator) -> Episode:
    ways = int(rng.integers(min(spec.ways[0], len(group)), min(spec.ways[1], len(group)) + 1))
    sizes = np.array([len(pool.rows_of_class[c]) for c in group])
    shots = int(rng.integers(spec.shots[0], spec.shots[1] + 1))
    queries = spec.queries_per_class
    roomy = group[sizes >= shots + queries]
    if len(roomy) < ways:  # too few large classes: take the largest, fewer shots, then fewer queries
        roomy = group[np.argsort(-sizes, kind="stable")[:ways]]
        room = int(min(len(pool.rows_of_class[c]) for c in roomy))
        queries = max(min(queries, room - 1), 1)
        shots = max(min(shots, room - queries), 1)
    chosen = rng.choice(roomy, ways, replace=False)
    asked = np.full(ways, queries)
    if not spec.balanced:
        asked = _uneven(queries, np.array([len(pool.rows_of_class[c]) for c in chosen]) - shots, rng)
    picked = [
        rng.choice(pool.rows_of_class[c], shots + n, replace=False)
        for c, n in zip(chosen, asked, strict=True)
    ]
    labels = np.arange(ways)
    return Episode(
        ways=ways,
        shots=shots,
        support_rows=np.concatenate([rows[:shots] for rows in picked]),
        support_labels=labels.repeat(shots),
        query_rows=np.concatenate([rows[shots:] for rows in picked]),
        query_labels=labels.repeat(asked),
        dataset=int(pool.dataset_of_class[chosen[0]]),
    )


def _uneven(queries: int, room: Rows, rng: np.random.Generator) -> Rows:
    """Queries of each class, `queries` on average where there is room, by shares drawn from a symmetric
    Dirichlet distribution (the protocol of Veilleux et al. 2021); at least one in all."""
    shares = rng.dirichlet(np.full(len(room), DIRICHLET))
    counts = np.minimum(rng.multinomial(queries * len(room), shares), room)
    if counts.sum() == 0:
        counts[int(shares.argmax())] = 1
    return counts


@dataclass(frozen=True)
class EpisodeBatch:
    """Episodes padded to common size, as index tensors: support rows and labels [b, s], query rows and
    labels [b, q] (int64; label -1 marks padding, its row is 0), ways [b]."""

    support_rows: torch.Tensor
    support_labels: torch.Tensor
    query_rows: torch.Tensor
    query_labels: torch.Tensor
    ways: torch.Tensor

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> EpisodeBatch:
        """Pad and stack."""
        return cls(
            _padded([e.support_rows for e in episodes], 0),
            _padded([e.support_labels for e in episodes], -1),
            _padded([e.query_rows for e in episodes], 0),
            _padded([e.query_labels for e in episodes], -1),
            torch.tensor([e.ways for e in episodes]),
        )


def _padded(arrays: Sequence[Rows], fill: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(np.array(a)) for a in arrays], batch_first=True, padding_value=fill
    )


def batches_of(episodes: Sequence[Episode], max_images: int) -> list[tuple[list[int], EpisodeBatch]]:
    """Batches of episodes of like size, each of at most `max_images` padded images (at least one episode);
    with the places of its episodes in the list."""
    order = sorted(range(len(episodes)), key=lambda i: episodes[i].support_rows.size)
    batches: list[tuple[list[int], EpisodeBatch]] = []
    group: list[int] = []
    for i in order:
        trial = [*group, i]
        widest = max(episodes[j].support_rows.size for j in trial) + max(
            episodes[j].query_rows.size for j in trial
        )
        if group and widest * len(trial) > max_images:
            batches.append((group, EpisodeBatch.of([episodes[j] for j in group])))
            trial = [i]
        group = trial
    if group:
        batches.append((group, EpisodeBatch.of([episodes[j] for j in group])))
    return batches
