"""The expected accuracy: right on average, with an interval that holds what other classes give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.core.student_t import quantile95
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.evaluation.accuracy import normalised_accuracy
from autometa.evaluation.estimate import Estimate, Recalls, estimate_accuracy
from autometa.evaluation.folds import draw_folds

SPEC = EpisodeSpec(ways=(5, 5), shots=(1, 5), queries_per_class=10)


def simulate(
    rng: np.random.Generator, classes: int, episodes: int, ways: tuple[int, int] = (5, 5), slope: float = 0.0
) -> Recalls:
    """Recalls of episodes over some classes, of which some are harder than others, in any company."""
    easiness = rng.normal(0.7, 0.12, classes)
    pairs = rng.normal(0, 0.08, (classes, classes))
    parts: list[list[float]] = [[], [], [], []]
    for episode in range(episodes):
        n = int(rng.integers(ways[0], ways[1] + 1))
        chosen = rng.choice(classes, n, replace=False)
        for c in chosen:
            mean = easiness[c] + pairs[c, chosen].sum() / n**0.5 + slope * np.log(n / 5)
            drawn = rng.binomial(10, np.clip(mean, 0, 1)) / 10
            for part, value in zip(parts, (drawn, c, episode, np.log(n)), strict=True):
                part.append(value)
    recall, of_class, of_episode, log_ways = map(np.array, parts)
    return Recalls(recall, of_class.astype(int), of_episode.astype(int), log_ways)


def true_mean(recalls: Recalls) -> float:
    """Mean accuracy of the episodes."""
    weights = 1 / np.exp(recalls.log_ways)
    return float((recalls.recall * weights).sum() / weights.sum())


@pytest.mark.medium
def test_the_interval_holds_the_accuracy_on_a_new_draw_of_classes() -> None:
    inside, halves, errors = 0, [], []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        estimate = estimate_accuracy(simulate(rng, 16, 120), SPEC, 60, rng)
        assert estimate is not None and estimate.low <= estimate.accuracy <= estimate.high
        truth = true_mean(simulate(rng, 16, 60))
        inside += estimate.low <= truth <= estimate.high
        halves.append((estimate.high - estimate.low) / 2)
        errors.append(truth - estimate.accuracy)
    assert inside >= 0.9 * 80  # 95 % is meant
    assert np.mean(halves) < 3.5 * np.std(errors) + 1 / 16  # nor is it far wider than needed
    assert abs(np.mean(errors)) < 0.02


def test_more_classes_and_more_tasks_make_it_narrower() -> None:
    def width(classes: int, tasks: int) -> float:
        rng = np.random.default_rng(0)
        estimate = estimate_accuracy(simulate(rng, classes, 200), SPEC, tasks, rng)
        assert estimate is not None
        return estimate.high - estimate.low

    assert width(60, 1000) < width(15, 1000) < width(15, 3)


def test_it_is_moved_to_the_ways_of_the_test() -> None:
    rng = np.random.default_rng(0)
    recalls = simulate(rng, 30, 400, ways=(2, 8), slope=-0.2)
    fewer, more = (
        estimate_accuracy(recalls, EpisodeSpec((ways, ways), (1, 5), 10), 100, rng) for ways in (2, 20)
    )
    assert fewer is not None and more is not None
    assert fewer.accuracy - more.accuracy == pytest.approx(0.2 * np.log(10), abs=0.1)
    rising = simulate(rng, 30, 400, ways=(2, 8), slope=0.2)  # more ways are never easier
    at = [estimate_accuracy(rising, EpisodeSpec((ways, ways), (1, 5), 10), 100, rng) for ways in (2, 20)]
    assert at[0] is not None and at[1] is not None and at[0].accuracy == pytest.approx(at[1].accuracy)


def test_too_little_is_no_estimate() -> None:
    rng = np.random.default_rng(0)
    few = Recalls(np.ones(19), np.arange(19), np.arange(19), np.full(19, np.log(2)))
    assert estimate_accuracy(few, SPEC, 10, rng) is None
    one_class = Recalls(np.ones(40), np.zeros(40, int), np.arange(40), np.full(40, np.log(2)))
    assert estimate_accuracy(one_class, SPEC, 10, rng) is None


def test_recalls_are_those_of_the_classes_asked_for() -> None:
    pool = colour_pool(classes=12, datasets=1)
    test = TestSpec(10, EpisodeSpec((2, 5), (1, 3), 4), None, "within-domain")
    folds = draw_folds(pool, test, 2, 15, np.random.default_rng(0))
    parts, accuracies = [], []
    for place, fold in enumerate(folds):
        labels = pool.labels[fold.rows]
        scores = []
        for (
            batch
        ) in fold.episodes.batches:  # classes with even numbers are known, others are taken for the first
            asked = torch.from_numpy(labels)[batch.query_rows] % 2
            score = torch.zeros(*batch.query_labels.shape, int(batch.ways.max()))
            score[..., 0] = 0.5
            right = torch.nn.functional.one_hot(batch.query_labels.clamp(min=0), score.shape[-1])
            scores.append(torch.where((asked == 0)[..., None], right.float(), score))
            accuracies.append(normalised_accuracy(scores[-1], batch.query_labels, batch.ways))
        parts.append(Recalls.of(fold, labels, scores, 15 * place))
        assert set(parts[-1].classes) <= set(fold.classes)
    recalls = Recalls.join(parts)
    assert set(recalls.episodes) == set(range(30))
    assert (recalls.recall[recalls.classes % 2 == 0] == 1.0).all()
    assert (recalls.recall[recalls.classes % 2 == 1] <= 1.0).all()
    assert recalls.recall.min() < 0
    assert true_mean(recalls) == pytest.approx(float(torch.cat(accuracies).mean()))
    counts = np.bincount(recalls.episodes)
    np.testing.assert_allclose(np.log(counts)[recalls.episodes], recalls.log_ways)


def test_figures_and_words() -> None:
    estimate = Estimate(0.75, 0.70, 0.80)
    assert estimate.percent() == "75.0 (95 %: 70.0 to 80.0)"
    assert estimate.figures() == {
        "normalised_accuracy": 0.75,
        "interval": [0.70, 0.80],
        "ci95": pytest.approx(0.05),
    }


def test_classes_without_a_query_make_no_episode_harder() -> None:
    """Where queries are not balanced, some classes have none. An episode went as the others say, and a single task
    varies as episodes do."""
    whole = simulate(np.random.default_rng(0), 16, 120)
    asked = np.random.default_rng(1).random(len(whole.recall)) < 0.4
    asked[:-1] |= whole.episodes[:-1] != whole.episodes[1:]  # one of each episode at least
    some = Recalls(whole.recall[asked], whole.classes[asked], whole.episodes[asked], whole.log_ways[asked])
    of_episode = [some.recall[some.episodes == episode].mean() for episode in range(120)]
    variances = []
    for tasks in (1, 10**9):
        estimate = estimate_accuracy(some, SPEC, tasks, np.random.default_rng(2))
        assert estimate is not None and estimate.low > 0
        assert estimate.accuracy == pytest.approx(np.mean(of_episode))
        variances.append(((estimate.accuracy - estimate.low - 1 / 16) / quantile95(16)) ** 2)
    assert variances[0] - variances[1] == pytest.approx(np.var(of_episode, ddof=1), rel=1e-4)
