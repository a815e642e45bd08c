"""The balanced-prior guard, with queries shared out evenly and by a Dirichlet distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from head_cases import episode

from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool
from autometa.heads import HEADS, apply_head
from autometa.heads.guard import looks_balanced

UNIFORM = [name for name, spec in HEADS.items() if spec.needs_balance]


def accuracy(name: str, queries: list[int], seed: int, *, declared: bool) -> float:
    batch, labels = episode(5, 3, queries, seed=seed, spread=1.0)
    scores = apply_head(name, HEADS[name].params, batch, balanced=declared)
    return float((scores[0].argmax(-1) == labels).float().mean())


def uneven(seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(n) for n in rng.multinomial(75, rng.dirichlet(np.full(5, 1.0)))]


def test_uniform_priors_are_declared() -> None:
    assert set(UNIFORM) == {"ot_map", "tim"}
    assert all(spec.transductive for spec in HEADS.values() if spec.needs_balance)


@pytest.mark.medium
@pytest.mark.parametrize("name", UNIFORM)
def test_uneven_queries_do_no_harm_unless_declared_even(name: str) -> None:
    guarded = np.mean([accuracy(name, uneven(s), s, declared=False) for s in range(30)])
    misled = np.mean([accuracy(name, uneven(s), s, declared=True) for s in range(30)])
    plain = np.mean([accuracy("centroid", uneven(s), s, declared=False) for s in range(30)])
    assert guarded > plain - 0.02
    assert guarded > misled + 0.01


def test_detector_tells_even_from_uneven() -> None:
    even = [bool(looks_balanced(episode(5, 3, 15, seed=s)[0])) for s in range(40)]
    odd = [bool(looks_balanced(episode(5, 3, uneven(s), seed=s)[0])) for s in range(40)]
    assert np.mean(even) > 0.9
    assert np.mean(odd) < 0.1


@pytest.mark.parametrize("name", [n for n, spec in HEADS.items() if spec.transductive])
def test_few_queries_are_answered_one_by_one(name: str) -> None:
    batch, _ = episode(6, 2, 1, seed=3)
    together = apply_head(name, HEADS[name].params, batch, balanced=True)
    for place in range(6):
        single = type(batch)(
            batch.support, batch.support_labels, batch.query[:, place : place + 1], batch.ways
        )
        alone = apply_head(name, HEADS[name].params, single, balanced=True)
        torch.testing.assert_close(alone[:, 0], together[:, place], atol=1e-4, rtol=1e-4)


def test_unbalanced_episodes_share_queries_unevenly() -> None:
    labels = np.arange(10).repeat(40)
    pool = ImagePool(np.zeros((400, 3, 1, 1), np.uint8), labels, np.zeros(10, np.int64), ("x",))
    spec = EpisodeSpec((5, 5), (2, 2), 8, balanced=False)
    drawn = sample_episodes(pool, np.arange(10), spec, 50, np.random.default_rng(0))
    counts = np.stack([np.bincount(e.query_labels, minlength=5) for e in drawn])
    assert 2 < counts.std(1).mean() < 8
    assert (counts.sum(1) <= 40).all()
    assert all(len(set(e.support_rows) & set(e.query_rows)) == 0 for e in drawn)
