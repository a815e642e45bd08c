"""What every head must do, whatever it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from head_cases import episode, padded, prior

from autometa.heads import HEADS, FeatureBatch, apply_head

SETTINGS = [(name, known, known) for name in HEADS for known in (True, False)]
"""With a prior from meta-train and queries declared balanced, and with neither."""
every_head = pytest.mark.parametrize(("name", "known", "balanced"), SETTINGS)


def answer(name: str, batch: FeatureBatch, known: bool, balanced: bool) -> torch.Tensor:
    batch = replace(batch, prior=prior(batch.support.shape[-1]) if known else None)
    return apply_head(name, HEADS[name].params, batch, balanced=balanced)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a.softmax(-1), b.softmax(-1), atol=2e-3)


@every_head
def test_separates_easy_classes(name: str, known: bool, balanced: bool) -> None:
    batch, labels = episode(5, 5, 6, spread=0.2)
    scores = answer(name, batch, known, balanced)
    assert scores.shape == (1, 30, 5)
    assert (scores[0].argmax(-1) == labels).all()


@every_head
def test_permuting_labels_permutes_scores(name: str, known: bool, balanced: bool) -> None:
    batch, _ = episode(5, 3, 4)
    order = torch.tensor([3, 0, 4, 1, 2])
    renamed = replace(batch, support_labels=order[batch.support_labels])
    assert close(answer(name, renamed, known, balanced)[..., order], answer(name, batch, known, balanced))


@every_head
def test_order_of_support_does_not_matter(name: str, known: bool, balanced: bool) -> None:
    batch, _ = episode(4, 3, 5)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = replace(batch, support=batch.support[:, order], support_labels=batch.support_labels[:, order])
    assert close(answer(name, shuffled, known, balanced), answer(name, batch, known, balanced))


@every_head
def test_batch_equals_one_by_one(name: str, known: bool, balanced: bool) -> None:
    shapes = [(2, 1, 1), (5, 3, 4), (7, 2, 1), (3, 10, 5)]
    alone = [episode(*shape, seed=seed)[0] for seed, shape in enumerate(shapes)]
    together = answer(name, padded(alone), known, balanced)
    for place, batch in enumerate(alone):
        ways, queries = int(batch.ways), batch.query.shape[1]
        scores = together[place, :queries]
        assert close(scores[:, :ways], answer(name, batch, known, balanced)[0])
        assert (scores[:, ways:] == -torch.inf).all()


@every_head
@pytest.mark.parametrize(("ways", "shots", "queries"), [(2, 1, 1), (2, 5, 3), (40, 1, 2), (40, 3, 1)])
def test_any_ways_and_shots(
    name: str, known: bool, balanced: bool, ways: int, shots: int, queries: int
) -> None:
    batch, _ = episode(ways, shots, queries)
    assert answer(name, batch, known, balanced).isfinite().all()


@every_head
def test_single_query_image(name: str, known: bool, balanced: bool) -> None:
    batch, labels = episode(3, 2, [1, 0, 0], spread=0.1)
    scores = answer(name, batch, known, balanced)
    assert scores.isfinite().all()
    assert scores[0].argmax(-1).equal(labels)


@every_head
@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_constant_features(name: str, known: bool, balanced: bool, value: float) -> None:
    batch, _ = episode(4, 2, 3)
    same = replace(
        batch, support=torch.full_like(batch.support, value), query=torch.full_like(batch.query, value)
    )
    assert answer(name, same, known, balanced).isfinite().all()
    only_support = replace(batch, support=torch.full_like(batch.support, value))
    assert answer(name, only_support, known, balanced).isfinite().all()


@every_head
@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_float_extremes(name: str, known: bool, balanced: bool, scale: float) -> None:
    batch, _ = episode(5, 3, 4, d=64)
    scaled = replace(batch, support=batch.support * scale, query=batch.query * scale)
    assert answer(name, scaled, known, balanced).isfinite().all()
