"""Memories learn to learn: far above their untrained state on classes that they have never seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from memory_cases import MEMORY, built

from autometa.heads import FeatureBatch
from autometa.learners.base import mean_nll

WAYS, QUERIES, DIM = 5, 2, 8
SIZES: dict[str, dict[str, Any]] = {
    "mann": {"controller": 64, "rows": 40, "row_width": 20},
    "meta_networks": {"hidden": 16},
    "snail": {"filters": 16},
}


def episodes(b: int) -> tuple[FeatureBatch, torch.Tensor]:
    """Classes are random points in half of the dimensions, the others are noise; labels of the queries [b, q]."""
    means = 2 * torch.randn(b, WAYS, DIM)
    labels = torch.arange(WAYS).repeat_interleave(QUERIES)
    noise = torch.tensor([0.3, 2.0]).repeat_interleave(DIM // 2)
    means = means * (noise < 1)
    support = means + noise * torch.randn(b, WAYS, DIM)
    query = means[:, labels] + noise * torch.randn(b, len(labels), DIM)
    batch = FeatureBatch(support, torch.arange(WAYS).expand(b, -1), query, torch.full((b,), WAYS))
    return batch, labels.expand(b, -1)


def accuracies(learner: Any) -> torch.Tensor:
    """Of each of 300 episodes."""
    torch.manual_seed(1)
    batch, labels = episodes(300)
    with torch.no_grad():
        return (learner.eval().compare(batch).argmax(-1) == labels).float().mean(1)


@pytest.mark.medium
@pytest.mark.parametrize("name", MEMORY)
def test_training_lifts_accuracy_on_new_classes(name: str) -> None:
    learner = built(name, max_ways=WAYS, **SIZES[name])
    before = accuracies(learner)
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], 2e-3)
    torch.manual_seed(0)
    learner.train()
    for _ in range(400):
        batch, labels = episodes(16)
        optimizer.zero_grad()
        mean_nll(learner.compare(batch), labels).backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
        optimizer.step()
    after = accuracies(learner)
    assert after.mean() > 0.6
    assert after.mean() - before.mean() > 10 * (after.std() + before.std()) / 300**0.5
