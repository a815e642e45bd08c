"""Episodes as row numbers of an image pool, which cost little, and batches of episodes as padded index tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autometa.core.errors import DataError
from autometa.data.images import ImagePool, Rows, group_places

DIRICHLET = 2.0
"""Concentration of the Dirichlet distribution of class shares in unbalanced queries; 1 is more uneven than 2."""


@dataclass(frozen=True)
class EpisodeSpec:
    """The form of episodes: bounds of `ways` and `shots`, both inclusive, and `queries_per_class`.

    If `balanced` is false, an episode has as many queries in all, but random numbers of each class.
    """

    ways: tuple[int, int] = (2, 20)
    shots: tuple[int, int] = (1, 20)
    queries_per_class: int = 20
    balanced: bool = True

    @property
    def mean_images(self) -> float:
        """Number of images in an average episode."""
        return sum(self.ways) / 2 * (sum(self.shots) / 2 + self.queries_per_class)


@dataclass(frozen=True)
class Episode:
    """One N-way k-shot episode as rows of a pool.

    Support rows and labels int64 [ways * shots], query rows and labels int64 [queries]; labels are 0..ways-1.
    """

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
    """Draw `n` episodes over `classes`; the datasets take turns, and an episode has classes of one dataset only.

    If the data has too few classes or images for `spec`, an episode has fewer ways, shots or queries.
    DataError if no dataset has two classes of two images each.
    """
    large = classes[pool.class_sizes[classes] >= 2]
    groups = group_places(pool.dataset_of_class[large], len(pool.datasets))
    usable = [large[places] for places in groups if len(places) >= 2]
    if not usable:
        raise DataError(
            f"no episode can be drawn from {len(classes)} classes of {len(pool.datasets)} dataset(s): give a "
            "dataset with two classes of two images each"
        )
    return [_sample_episode(pool, usable[i % len(usable)], spec, rng) for i in range(n)]


def _sample_episode(pool: ImagePool, group: Rows, spec: EpisodeSpec, rng: np.random.Generator) -> Episode:
    """One episode over the classes of a dataset that have two images or more."""
    ways = int(rng.integers(min(spec.ways[0], len(group)), min(spec.ways[1], len(group)) + 1))
    sizes = pool.class_sizes[group]
    shots = int(rng.integers(spec.shots[0], spec.shots[1] + 1))
    queries = spec.queries_per_class
    candidates = group[sizes >= shots + queries]
    if len(candidates) < ways:  # too few large classes: take the largest, fewer shots, then fewer queries
        candidates = group[np.argsort(-sizes, kind="stable")[:ways]]
        room = int(pool.class_sizes[candidates].min())
        queries = max(min(queries, room - 1), 1)
        shots = max(min(shots, room - queries), 1)
    chosen = rng.choice(candidates, ways, replace=False)
    query_counts = np.full(ways, queries)
    if not spec.balanced:
        spare = pool.class_sizes[chosen] - shots
        query_counts = _draw_uneven_counts(queries, spare, rng)
    picked = [
        rng.choice(pool.rows_of_class[c], shots + n, replace=False)
        for c, n in zip(chosen, query_counts, strict=True)
    ]
    labels = np.arange(ways)
    return Episode(
        ways=ways,
        shots=shots,
        support_rows=np.concatenate([rows[:shots] for rows in picked]),
        support_labels=labels.repeat(shots),
        query_rows=np.concatenate([rows[shots:] for rows in picked]),
        query_labels=labels.repeat(query_counts),
        dataset=int(pool.dataset_of_class[chosen[0]]),
    )


def _draw_uneven_counts(queries: int, spare: Rows, rng: np.random.Generator) -> Rows:
    """Number of queries of each class: `queries` on average, but no more than its `spare` images, and one in all.

    Class shares come from a symmetric Dirichlet distribution (the protocol of Veilleux et al. 2021).
    """
    shares = rng.dirichlet(np.full(len(spare), DIRICHLET))
    counts = np.minimum(rng.multinomial(queries * len(spare), shares), spare)
    if counts.sum() == 0:
        counts[int(shares.argmax())] = 1
    return counts


@dataclass(frozen=True)
class EpisodeBatch:
    """Episodes padded to a common size, as int64 tensors.

    Support rows and labels [b, s], query rows and labels [b, q], ways [b]. Padding has label -1 and row 0.
    """

    support_rows: torch.Tensor
    support_labels: torch.Tensor
    query_rows: torch.Tensor
    query_labels: torch.Tensor
    ways: torch.Tensor

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> EpisodeBatch:
        """Pad and stack episodes."""
        return cls(
            _pad([e.support_rows for e in episodes], 0),
            _pad([e.support_labels for e in episodes], -1),
            _pad([e.query_rows for e in episodes], 0),
            _pad([e.query_labels for e in episodes], -1),
            torch.tensor([e.ways for e in episodes]),
        )


def _pad(arrays: Sequence[Rows], fill: int) -> torch.Tensor:
    """Arrays [n] of any lengths → one tensor [b, longest]."""
    return torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(np.array(a)) for a in arrays], batch_first=True, padding_value=fill
    )


def make_batches(episodes: Sequence[Episode], max_images: int) -> list[tuple[list[int], EpisodeBatch]]:
    """Batches of episodes of similar size, each with the places of its episodes in the list.

    A batch has at most `max_images` images, padding included, or a single episode.
    """
    order = sorted(range(len(episodes)), key=lambda i: episodes[i].support_rows.size)
    batches: list[tuple[list[int], EpisodeBatch]] = []
    group: list[int] = []
    for i in order:
        larger = [*group, i]
        support = max(episodes[j].support_rows.size for j in larger)
        query = max(episodes[j].query_rows.size for j in larger)
        if group and (support + query) * len(larger) > max_images:
            batches.append((group, EpisodeBatch.of([episodes[j] for j in group])))
            larger = [i]
        group = larger
    if group:
        batches.append((group, EpisodeBatch.of([episodes[j] for j in group])))
    return batches
