"""Normalised accuracy, intervals, calibration, ensembles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.evaluation.accuracy import interval95, normalised_accuracy, paired_gain
from autometa.evaluation.mixing import average, fit_temperature, log_probabilities
from autometa.evaluation.validation_episodes import ValidationEpisodes
from autometa.heads import METRICS, FeatureStatistics


def test_normalised_accuracy_is_macro_recall_above_chance() -> None:
    scores = torch.tensor([[[1.0, 0], [1, 0], [0, 1], [9, 9]]])
    labels = torch.tensor([[0, 1, 1, -1]])
    assert normalised_accuracy(scores, labels, torch.tensor([2])).item() == pytest.approx((0.75 - 0.5) / 0.5)
    perfect = torch.eye(3)[None]
    assert normalised_accuracy(perfect, torch.arange(3)[None], torch.tensor([3])).item() == 1
    constant = torch.tensor([[[1.0, 0, 0]] * 3])
    assert normalised_accuracy(constant, torch.arange(3)[None], torch.tensor([3])).item() == pytest.approx(0)


def test_interval_is_student_s() -> None:
    assert interval95(np.array([1.0])) == 0
    assert interval95(np.array([0.0, 1.0])) == pytest.approx(12.706 * np.sqrt(0.5) / np.sqrt(2), rel=1e-4)
    gain, error = paired_gain(np.array([0.5, 0.7]), np.array([0.4, 0.6]))
    assert (gain, error) == pytest.approx((0.1, 0), rel=1e-6, abs=1e-12)


@pytest.fixture
def validation() -> ValidationEpisodes:
    spec = EpisodeSpec(ways=(2, 5), shots=(1, 3), queries_per_class=4)
    return ValidationEpisodes(
        sample_episodes(colour_pool(), np.arange(12), spec, 30, np.random.default_rng(1))
    )


def noisy(validation: ValidationEpisodes, seed: int, noise: float) -> list[torch.Tensor]:
    """Scores that point at the truth, with noise; -inf for classes that an episode does not have."""
    generator = torch.Generator().manual_seed(seed)
    scores = []
    for labels in validation.labels:
        n = int(labels.max()) + 1
        ways = labels.max(1).values[:, None, None] + 1
        score = torch.nn.functional.one_hot(labels.clamp(min=0), n).float()
        score = score + noise * torch.randn(score.shape, generator=generator)
        scores.append(score.masked_fill(torch.arange(n) >= ways, float("-inf")))
    return scores


def test_temperature_recovers_the_scale(validation: ValidationEpisodes) -> None:
    answer = validation.measure(noisy(validation, 0, 0.5))
    scaled = validation.measure([s * 50 for s in answer.scores])
    ratio = fit_temperature(scaled, validation) / fit_temperature(answer, validation)
    assert ratio == pytest.approx(50, rel=0.05)


def test_average_keeps_absent_classes_out() -> None:
    log_p = [log_probabilities(torch.tensor([[1.0, 2.0, float("-inf")]]), 1.0) for _ in range(2)]
    p = average(log_p, [1.0, 3.0]).exp()
    assert p[0, 2] == 0
    assert p.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("head", ["ot_map", "soft_kmeans", "alpha_tim", "bd_cspn"])
def test_products_looked_up_in_the_pool_give_the_scores_that_features_give(head: str) -> None:
    spec = EpisodeSpec(ways=(2, 5), shots=(1, 3), queries_per_class=4)
    pool = colour_pool()
    episodes = sample_episodes(pool, np.arange(12), spec, 60, np.random.default_rng(1))
    features = torch.randn(len(pool.labels), 7, generator=torch.Generator().manual_seed(0))
    metric = FeatureStatistics(features, torch.from_numpy(pool.labels)).fit(METRICS["l2"])
    params = {"sharpness": 10.0} if head == "soft_kmeans" else {}
    together = ValidationEpisodes(episodes)
    answer = together.answer(metric(features), head, params, metric, balanced=True)
    for place in (0, 31, 59):
        alone = ValidationEpisodes([episodes[place]])
        assert alone.answer(metric(features), head, params, metric, balanced=True).mean == pytest.approx(
            answer.accuracies[place]
        )
