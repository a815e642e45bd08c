"""Averaging the answers of several learners, with weights fitted on validation episodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.evaluation.mixing import fit_mixture_weights, mix_batches
from autometa.evaluation.validation_episodes import ValidationEpisodes

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 3), queries_per_class=3)
POOL = colour_pool(classes=16)


def validation(n: int = 6) -> ValidationEpisodes:
    return ValidationEpisodes(sample_episodes(POOL, np.arange(16), SPEC, n, np.random.default_rng(0)))


def says(episodes: ValidationEpisodes, right: float) -> list[torch.Tensor]:
    """Log-probabilities that give the label `right` and share the rest among the other classes."""
    found = []
    for batch in episodes.batches:
        of_label = torch.nn.functional.one_hot(
            batch.query_labels.clamp(min=0), int(batch.ways.max())
        ).double()
        p = of_label * right + (1 - of_label) * (1 - right) / (batch.ways[:, None, None] - 1)
        present = torch.arange(p.shape[-1]) < batch.ways[:, None, None]
        found.append(p.log().masked_fill(~present, -torch.inf))
    return found


def test_weights_go_to_members_that_are_right_and_to_those_that_differ() -> None:
    episodes = validation()
    good, bad = says(episodes, 0.9), says(episodes, 0.1)
    assert fit_mixture_weights([good, bad], episodes)[0] > 0.99
    assert fit_mixture_weights([good, good], episodes) == pytest.approx([0.5, 0.5])
    halves = [
        [
            torch.where(torch.arange(g.shape[1])[:, None] % 2 == half, g, b)
            for g, b in zip(good, bad, strict=True)
        ]
        for half in range(2)
    ]
    weights = fit_mixture_weights([*halves, bad], episodes)
    assert sum(weights) == pytest.approx(1)
    assert weights[2] < 0.01 and min(weights[:2]) > 0.3


def test_a_mixture_is_the_weighted_mean_of_probabilities() -> None:
    a, b = torch.tensor([[0.25, 0.75, 0.0]]).log(), torch.tensor([[0.75, 0.25, 0.0]]).log()
    mixed = mix_batches([[a], [b]], [3.0, 1.0])[0].exp()
    torch.testing.assert_close(mixed.float(), torch.tensor([[0.375, 0.625, 0.0]]))
