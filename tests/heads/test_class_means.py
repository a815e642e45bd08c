"""Class means that are kept answer as the inductive modes do, and kept weights of ridge regression as its head."""

from __future__ import annotations

import pytest
import torch

from autometa.heads import FeatureBatch, apply_head
from autometa.heads.class_means import ClassMeans, SupportMeans
from autometa.heads.features import unit
from autometa.heads.modes import SIX_MODES, answer_alone, collect_keys
from autometa.heads.ot_map import without_transport
from autometa.heads.refine import DEFAULT_REFINEMENT
from autometa.heads.ridge import ridge_weights
from autometa.heads.solve import FACTOR_JITTER, factor_products

SHOTS = [(1, 1), (3, 1, 2), (5, 5, 5, 5), (1, 9)]


def draw(shots: tuple[int, ...], d: int = 24, q: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Support [s, d], its labels, and queries [q, d], of unit length."""
    generator = torch.Generator().manual_seed(len(shots))
    labels = torch.repeat_interleave(torch.arange(len(shots)), torch.tensor(shots))
    rows = unit(torch.randn(len(labels) + q, d, generator=generator))
    return rows[: len(labels)], labels, rows[len(labels) :]


@pytest.mark.parametrize("shots", SHOTS)
def test_they_answer_as_the_counterpart_of_transport(shots: tuple[int, ...]) -> None:
    support, labels, query = draw(shots)
    batch = FeatureBatch(support[None], labels[None], query[None], torch.tensor([len(shots)]))
    scores = ClassMeans.of(support, labels, len(shots)).scores(query, 12.0)
    expected = without_transport(batch, sharpness=12.0)[0]
    torch.testing.assert_close(scores.exp(), expected.exp(), atol=1e-5, rtol=0)


def test_they_answer_as_on_factors_of_the_inner_products() -> None:
    support, labels, query = draw((2, 3))
    together = torch.cat([support, query])
    factors = factor_products(together @ together.T)
    batch = FeatureBatch(factors[None, :5], labels[None], factors[None, 5:], torch.tensor([2]))
    means = ClassMeans.of(support, labels, 2, FACTOR_JITTER)
    expected = without_transport(batch, sharpness=10.0)[0]
    torch.testing.assert_close(means.scores(query, 10.0).exp(), expected.exp(), atol=1e-5, rtol=0)


def test_images_that_are_no_numbers_count_as_zero() -> None:
    support, labels, query = draw((2, 2))
    broken, zero = support.clone(), support.clone()
    broken[1, 3], zero[1] = torch.nan, 0.0
    answers = [ClassMeans.of(rows, labels, 2).scores(query, 10.0) for rows in (broken, zero)]
    torch.testing.assert_close(answers[0], answers[1])
    assert ClassMeans.of(support, labels, 2).scores(query * torch.inf, 10.0).isfinite().all()


@pytest.mark.parametrize("shots", SHOTS)
def test_all_modes_answer_as_without_keeping(shots: tuple[int, ...]) -> None:
    support, labels, query = draw(shots)
    keys = sorted(collect_keys(SIX_MODES))
    turned = {key: place + 1 for place, key in enumerate(keys)}

    def features(rows: torch.Tensor) -> dict[tuple[str, bool], torch.Tensor]:
        return {key: unit(rows.roll(turned[key], 1) + 0.1 * turned[key]) for key in keys}

    of_support, of_query = features(support), features(query)
    ways = torch.tensor([len(shots)])
    batches = {
        key: FeatureBatch(of_support[key][None], labels[None], of_query[key][None], ways) for key in keys
    }
    kept = SupportMeans.of(SIX_MODES, of_support, labels, sharpness=DEFAULT_REFINEMENT.sharpness)
    torch.testing.assert_close(
        kept.answer(of_query).exp(), answer_alone(SIX_MODES, batches)[:, 0].exp(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("d", [3, 24])
def test_kept_weights_are_those_of_ridge_regression(d: int) -> None:
    support, labels, query = draw((3, 1, 2), d)
    batch = FeatureBatch(support[None], labels[None], query[None], torch.tensor([3]))
    scores = query @ ridge_weights(support, labels, 3, 0.1)
    torch.testing.assert_close(scores, apply_head("ridge", {"strength": 0.1}, batch)[0], atol=1e-5, rtol=0)
