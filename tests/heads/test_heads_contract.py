"""What every head must do, whatever it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from head_cases import episode, padded, prior

from autometa.heads import HEADS, FeatureBatch, apply_head
from autometa.heads.features import unit

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


@pytest.mark.parametrize("name", [name for name, spec in HEADS.items() if not spec.transductive])
@pytest.mark.parametrize("copies", [True, False])
def test_how_many_queries_are_asked_does_not_matter(name: str, copies: bool) -> None:
    """For heads that answer each query by itself, also where the images of each class are copies of one and nothing
    but the support tells the scale of features."""
    generator = torch.Generator().manual_seed(3)
    labels, asked = torch.tensor([0, 0, 0, 0, 0, 1]), torch.arange(400) % 2
    means = unit(torch.randn(2, 128, generator=generator))
    support = means[labels] + (0.0 if copies else 0.02) * torch.randn(6, 128, generator=generator)
    query = unit(0.35 * means[asked] + 0.65 * unit(torch.randn(400, 128, generator=generator)))
    batch = FeatureBatch(support[None], labels[None], query[None], torch.tensor([2]))
    together = answer(name, batch, False, False)
    for n in (1, 40):
        few = answer(name, replace(batch, query=query[None, :n]), False, False)
        torch.testing.assert_close(few.softmax(-1), together[:, :n].softmax(-1), atol=1e-4, rtol=0)


def test_padded_queries_and_support_say_nothing_of_the_scale_of_features() -> None:
    alone = replace(episode(3, 2, 4)[0], prior=None)
    copied = replace(alone, support=alone.support[:, ::2].repeat_interleave(2, 1))
    larger, _ = episode(3, 4, 20, seed=1)
    for name in ("plda", "qda", "mahalanobis"):
        together = answer(name, padded([copied, larger]), False, False)[:1, : copied.query.shape[1]]
        assert close(together, answer(name, copied, False, False))


def test_the_length_of_other_queries_does_not_matter_where_support_images_are_nearly_the_same() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    support = 1.0 + 1e-3 * torch.randn(7, 4, generator=generator)
    query = 1.0 + 1e-3 * torch.randn(30, 4, generator=generator)
    query[10:] *= 30
    batch = FeatureBatch(support[None], labels[None], query[None], torch.tensor([2]))
    for name in ("plda", "qda", "mahalanobis"):
        few = answer(name, replace(batch, query=query[None, :10]), False, False)
        together = answer(name, batch, False, False)
        assert close(few, together[:, :10]), name
