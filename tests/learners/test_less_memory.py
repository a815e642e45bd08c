"""Training steps and images that memory is too small for are done in parts, with the same result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from learner_cases import TINY, built, image_episode

from autometa.core.budget import UNLIMITED
from autometa.core.errors import BudgetExhausted
from autometa.learners.base import EpisodicLearner
from autometa.learners.encoder import prepare_in_chunks
from autometa.learners.episodes import InputEpisodes, stack_episodes
from autometa.learners.metric.base import MetricLearner
from autometa.learners.storage import MEMORY

BATCH = stack_episodes([image_episode(ways, 2, 3, seed=ways) for ways in (2, 3, 5, 4, 2)])


def gradients(learner: EpisodicLearner, times: int = 1) -> tuple[float, dict[str, torch.Tensor]]:
    learner.zero_grad()
    for _ in range(times):
        loss = learner.accumulate(BATCH)
    return loss, {n: p.grad / times for n, p in learner.named_parameters() if p.grad is not None}


def scarce(learner: MetricLearner, most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """No more than so many episodes fit the memory; how many were tried."""
    loss, tried = learner.loss, []

    def short(episodes: InputEpisodes) -> torch.Tensor:
        tried.append(len(episodes.ways))
        if len(episodes.ways) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(episodes)

    monkeypatch.setattr(learner, "loss", short)
    return tried


@pytest.mark.medium
@pytest.mark.parametrize("name", ["prototypical", "matching"])
def test_a_step_in_parts_gives_the_same_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = built(name)
    whole_loss, whole = gradients(learner)
    tried = scarce(learner, 2, monkeypatch)
    loss, parts = gradients(learner)
    assert tried == [5, 3, 2, 2, 1], "halves, then quarters, from then on"
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    assert parts.keys() == whole.keys()
    for key, gradient in whole.items():
        torch.testing.assert_close(parts[key], gradient, atol=1e-6, rtol=1e-4)
    tried.clear()
    _, twice = gradients(learner, times=2)
    assert tried == [2, 2, 1] * 2
    torch.testing.assert_close(twice, whole, atol=1e-6, rtol=1e-4)


@pytest.mark.medium
def test_what_a_failed_part_has_added_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = built("prototypical")
    whole_loss, whole = gradients(learner)
    loss_of, tried = learner.loss, list[int]()

    def short(episodes: InputEpisodes) -> torch.Tensor:
        tried.append(len(episodes.ways))
        loss: torch.Tensor = loss_of(episodes)
        if tried == [2, 2]:
            loss.backward(retain_graph=True)  # some gradients are there already when memory runs out
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss

    monkeypatch.setattr(learner, "loss", short)
    learner.limit_at_once(2, 5)
    loss, parts = gradients(learner)
    assert tried == [2, 2, 1, 1, 1, 1, 1]
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-4)


@pytest.mark.medium
def test_what_failed_leaves_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = built("prototypical")
    scarce(learner, 0, monkeypatch)
    with pytest.raises(BudgetExhausted, match="not enough memory for a single episode"):
        learner.accumulate(BATCH)
    assert all(parameter.grad is None for parameter in learner.parameters())


@pytest.mark.medium
def test_images_are_prepared_in_smaller_chunks_with_the_same_result() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 3, TINY.px, TINY.px), dtype=np.uint8)
    sizes: list[int] = []

    def work(chunk: torch.Tensor) -> Any:
        sizes.append(len(chunk))
        if len(chunk) > 16:
            raise RuntimeError("CUDA out of memory")
        return chunk.float()

    assert torch.equal(
        prepare_in_chunks(work, images, UNLIMITED, MEMORY, 64), torch.from_numpy(images).float()
    )
    assert sizes == [50, 25, 12, 12, 12, 12, 2]
    assert prepare_in_chunks(work, images[:0], UNLIMITED, MEMORY).shape == (0, 3, TINY.px, TINY.px)
