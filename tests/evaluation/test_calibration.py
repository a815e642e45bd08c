"""Calibration error of validation answers: by hand, and as scoring computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.evaluation.accuracy import calibration_error
from autometa.evaluation.mixing import ShotTemperature, fit_temperature, log_probabilities
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from scoring.calibration import merge, reliability


def test_the_error_is_that_computed_by_hand() -> None:
    probabilities = torch.tensor(
        [[[0.9, 0.1, 0], [0.92, 0.08, 0]], [[0.38, 0.62, 0], [0, 0, 1]], [[0, 1, 0], [0.5, 0.5, 0]]]
    )
    labels = torch.tensor([[0, 1], [1, 2], [0, -1]])
    one_bin, lonely, certain = 2 * abs(0.5 - 0.91), abs(1 - 0.62), 2 * abs(0.5 - 1)
    expected = (one_bin + lonely + certain) / 5
    assert calibration_error([probabilities.log()], [labels]) == pytest.approx(expected)
    assert math.isnan(calibration_error([probabilities.log()], [torch.full_like(labels, -1)]))


@pytest.mark.parametrize("batches", [0, 1])
def test_without_a_query_there_is_no_error(batches: int) -> None:
    log_p, labels = torch.zeros(2, 3, 4), torch.full((2, 3), -1)
    assert math.isnan(calibration_error([log_p] * batches, [labels] * batches))


def test_it_is_the_error_that_scoring_tells() -> None:
    generator = torch.Generator().manual_seed(3)
    log_p = (2 * torch.randn(20, 30, 6, generator=generator, dtype=torch.float64)).log_softmax(-1)
    labels = torch.randint(-1, 6, (20, 30), generator=generator)
    assert calibration_error([log_p], [labels]) == pytest.approx(
        _as_scoring_tells([log_p], [labels]), abs=1e-12
    )


def test_answers_tell_it_over_all_batches_once_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autometa.evaluation.validation_episodes.MAX_BATCH_IMAGES", 100)
    spec = EpisodeSpec(ways=(2, 5), shots=(1, 3), queries_per_class=4)
    validation = ValidationEpisodes(
        sample_episodes(colour_pool(), np.arange(12), spec, 30, np.random.default_rng(1))
    )
    assert len(validation.batches) > 1
    answer = _blurred_truth(validation)
    assert "calibration_error" not in answer.figures()
    calibrated = _at(answer, fit_temperature(answer, validation))
    errors = [
        validation.with_calibration(each).figures()["calibration_error"]
        for each in (calibrated, _at(answer, 0.02), _at(answer, 50.0))
    ]
    assert errors[0] < min(errors[1:])
    assert errors[0] == pytest.approx(_as_scoring_tells(calibrated.scores, validation.labels), abs=1e-6)


def test_the_temperature_by_shots_is_found_again() -> None:
    """Labels drawn with probabilities that an ensemble is not sure enough of, the less the more shots there are."""
    spec = EpisodeSpec(ways=(3, 5), shots=(1, 8), queries_per_class=6)
    validation = ValidationEpisodes(
        sample_episodes(colour_pool(per_class=20), np.arange(12), spec, 200, np.random.default_rng(1))
    )
    generator = torch.Generator().manual_seed(1)
    level, slope = 0.2, -0.4
    mixed = []
    for batch, shots in zip(validation.batches, validation.shots, strict=True):
        assert shots.tolist() == pytest.approx(((batch.support_labels >= 0).sum(1) / batch.ways).tolist())
        n = int(batch.ways.max())
        truth = torch.nn.functional.one_hot(batch.query_labels.clamp(min=0), n)
        noise = torch.randn(truth.shape, generator=generator)
        logits = 1.5 * (noise + 1.5 * truth)  # Bayes' rule for normal noise: its softmax is right
        absent = torch.arange(n) >= batch.ways[:, None, None]
        temperature = (level + slope * shots.log()).exp()[:, None, None]
        mixed.append((logits.masked_fill(absent, float("-inf")) * temperature).log_softmax(-1))
    found = ShotTemperature.fit(mixed, validation)
    sharper = [found(*pair) for pair in zip(mixed, validation.shots, strict=True)]
    assert found.level == pytest.approx(level, abs=0.1)
    assert found.slope == pytest.approx(slope, abs=0.1)
    before, after = (validation.measure_with_loss(scores) for scores in (mixed, sharper))
    assert after.log_loss < before.log_loss
    np.testing.assert_array_equal(before.accuracies, after.accuracies)


def test_one_number_of_shots_tells_nothing_of_a_slope() -> None:
    spec = EpisodeSpec(ways=(3, 3), shots=(2, 2), queries_per_class=4)
    validation = ValidationEpisodes(
        sample_episodes(colour_pool(), np.arange(12), spec, 30, np.random.default_rng(1))
    )
    answer = _blurred_truth(validation)
    found = ShotTemperature.fit([scores.log_softmax(-1) for scores in answer.scores], validation)
    assert found.slope == 0
    assert np.exp(found.level) == pytest.approx(fit_temperature(answer, validation), rel=0.05)


def _as_scoring_tells(batches: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> float | None:
    """Scoring's figure for log-probabilities [b, q, n] and labels [b, q] of each batch, an episode a task."""
    told = []
    for log_p, truths in zip(batches, labels, strict=True):
        for scores, truth in zip(log_p.double().exp().numpy(), truths.numpy(), strict=True):
            real = truth >= 0
            told.append(reliability(scores[real], scores[real].argmax(1), truth[real]))
    return merge(told).expected_error


def _blurred_truth(validation: ValidationEpisodes) -> Answer:
    generator = torch.Generator().manual_seed(0)
    scores = []
    for labels in validation.labels:
        n = int(labels.max()) + 1
        score = torch.nn.functional.one_hot(labels.clamp(min=0), n).float()
        score = score + 0.5 * torch.randn(score.shape, generator=generator)
        ways = labels.max(1).values[:, None, None] + 1
        scores.append(score.masked_fill(torch.arange(n) >= ways, float("-inf")))
    return validation.measure(scores)


def _at(answer: Answer, temperature: float) -> Answer:
    return Answer(
        tuple(log_probabilities(scores, temperature) for scores in answer.scores), answer.accuracies
    )
