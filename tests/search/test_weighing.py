"""Weights from evidence: equal where there is only noise, on the better option where there is a difference."""

from __future__ import annotations

import numpy as np
import pytest

from autometa.search.weighing import fold_error, shrink_gain, shrinkage_of, soft_weights, without_fold

SOFTNESS = 0.02


def noisy(means: list[float], folds: int, noise: float, seed: int) -> np.ndarray:
    """Accuracies of options in folds that are harder or easier for all of them."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.1, folds)
    return np.array(means)[:, None] + hard + rng.normal(0, noise, (len(means), folds))


def test_a_difference_counts_by_what_it_exceeds_the_noise() -> None:
    assert shrinkage_of(4.0, 0.0) == 1.0
    assert shrinkage_of(4.0, 1.0) == 0.75
    assert shrinkage_of(1.0, 4.0) == 0.0
    assert shrinkage_of(0.0, 0.0) == 0.0
    assert shrink_gain(0.04, 0.02) == pytest.approx(0.03)
    assert shrink_gain(-0.04, 0.02) == pytest.approx(-0.03)
    assert shrink_gain(0.01, 0.02) == shrink_gain(0.01, float("inf")) == 0.0


def test_noise_leaves_weights_about_equal() -> None:
    weights = np.array([soft_weights(noisy([0.7] * 4, 5, 0.02, seed), SOFTNESS) for seed in range(60)])
    unshrunk = []
    for seed in range(60):
        means = noisy([0.7] * 4, 5, 0.02, seed).mean(1)
        powers = np.exp((means - means.max()) / SOFTNESS)
        unshrunk.append(powers / powers.sum())
    np.testing.assert_allclose(weights.sum(1), 1.0)
    assert np.median(np.abs(weights - 0.25).max(1)) < 0.05
    assert np.abs(weights - 0.25).mean() < 0.6 * np.abs(np.array(unshrunk) - 0.25).mean()


def test_a_clear_difference_moves_the_weight_to_the_better_option() -> None:
    weights = soft_weights(noisy([0.7, 0.8, 0.7], 5, 0.01, 0), SOFTNESS)
    assert weights[1] > 0.95
    assert weights.sum() == pytest.approx(1.0)


def test_harder_folds_are_no_noise() -> None:
    accuracies = np.array([[0.5, 0.9], [0.52, 0.92]])
    weights = soft_weights(accuracies, SOFTNESS)
    assert weights[1] / weights[0] == pytest.approx(np.e)


def test_with_one_fold_half_of_a_difference_counts() -> None:
    weights = soft_weights(np.array([[0.70], [0.74]]), SOFTNESS)
    assert weights[1] / weights[0] == pytest.approx(np.e)


def test_a_single_option_has_all_the_weight() -> None:
    assert soft_weights(np.array([[0.3, 0.4, 0.5]]), SOFTNESS).tolist() == [1.0]


def test_a_fold_is_left_out() -> None:
    accuracies = np.arange(6.0).reshape(2, 3)
    assert without_fold(accuracies, 1).tolist() == [[0, 2], [3, 5]]


def test_the_error_between_folds() -> None:
    assert fold_error([0.5]) == float("inf")
    assert fold_error([0.1, 0.3]) == pytest.approx(0.1)
