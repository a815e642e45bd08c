"""Semi-supervised prototypes with masks: against formulas written by hand, at their limits, and learned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from learner_cases import WIDTH, built, features
from metric_cases import arrays, means_of, probabilities, softmax, squared_distances, unlabelled_like

from autometa.core.errors import ConfigError
from autometa.heads import FeatureBatch
from autometa.learners.metric.base import Unlabelled


def masked(threshold: float | None = None, slope: float = 1.0) -> Any:
    """The learner with masks; with a threshold, they have these limits whatever the distances are."""
    learner: Any = built("semi_supervised_prototypical", distractors="masked")
    if threshold is not None:
        with torch.no_grad():
            learner.mask.layers[2].weight.zero_()
            learner.mask.layers[2].bias.copy_(torch.tensor([threshold, slope]).log())
    return learner


def test_masks_follow_the_formulas() -> None:
    batch = features(3, 2, 3)
    extra = unlabelled_like(batch, 10)
    learner = masked()
    support, labels, query = arrays(batch)
    images, prototypes = extra.features[0].double().numpy(), means_of(batch)
    distances = squared_distances(images, prototypes)
    share, masks = softmax(-distances), np.empty_like(distances)
    for c in range(3):
        relative = distances[:, c] / distances[:, c].mean()
        moments = [((relative - 1) ** power).mean() for power in (2, 3, 4)]
        skewness, kurtosis = moments[1] / moments[0] ** 1.5, moments[2] / moments[0] ** 2 - 3
        statistics = [relative.min(), relative.max(), moments[0], skewness, kurtosis]
        limits = learner.mask.layers(torch.tensor(statistics, dtype=torch.float32)).exp()
        threshold, slope = limits.tolist()
        masks[:, c] = 1 / (1 + np.exp(slope * (relative - threshold)))
    assert masks.min() < 0.5 < masks.max() and np.ptp(limits.tolist()) > 1e-4
    weights = share * masks
    moved = [
        (support[labels == c].sum(0) + weights[:, c] @ images) / ((labels == c).sum() + weights[:, c].sum())
        for c in range(3)
    ]
    expected = softmax(-squared_distances(query, np.stack(moved)))
    np.testing.assert_allclose(probabilities(learner, batch, extra), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("threshold", "same_as", "options"),
    [(1e6, "semi_supervised_prototypical", {"rounds": 2}), (1e-6, "prototypical", {})],
)
def test_masks_let_all_or_nothing_through(threshold: float, same_as: str, options: dict[str, Any]) -> None:
    batch = features(3, 2, 3)
    extra = unlabelled_like(batch, 10)
    learner = masked(threshold, slope=1e4)
    learner.rounds = 2
    other = built(same_as, **options)
    expected = probabilities(other, batch, extra if options else None)
    np.testing.assert_allclose(probabilities(learner, batch, extra), expected, atol=1e-5)
    assert np.abs(expected - probabilities(masked(1.0), batch, extra)).max() > 0.001


def test_masks_are_learned_and_let_gradients_through() -> None:
    batch, learner = features(3, 2, 3), masked()
    extra = replace(unlabelled_like(batch, 10), features=unlabelled_like(batch, 10).features.requires_grad_())
    learner.compare(batch, extra).log_softmax(-1)[..., 0].mean().backward()
    for name, parameter in learner.mask.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, name
    assert float(extra.features.grad.abs().min()) > 0
    assert not any("mask" in name for name in built("semi_supervised_prototypical").state_dict())
    with pytest.raises(ConfigError, match="distractors"):
        built("semi_supervised_prototypical", distractors="cluster")


def test_masks_take_equal_and_padded_images() -> None:
    batch = features(3, 2, 3)
    extra = unlabelled_like(batch, 6)
    real = torch.tensor([[True, True, False, True, False, True]])
    alone = Unlabelled(extra.features[:, real[0]], real[:, real[0]])
    learner = masked()
    np.testing.assert_allclose(
        probabilities(learner, batch, replace(extra, real=real)),
        probabilities(learner, batch, alone),
        atol=1e-6,
    )
    equal = Unlabelled(extra.features[:, :1].expand(1, 4, -1), torch.ones(1, 4, dtype=torch.bool))
    nothing = replace(extra, real=torch.zeros_like(real))
    assert np.isfinite(probabilities(learner, batch, equal)).all()
    plain = probabilities(built("prototypical"), batch)
    np.testing.assert_allclose(probabilities(learner, batch, nothing), plain, atol=1e-6)


def tasks_with_distractors(seed: int, tasks: int) -> tuple[FeatureBatch, Unlabelled, torch.Tensor]:
    """Two classes with one labelled image each, five images without labels of each and of a third class that lies
    near the first one, and the labels of the queries."""
    generator = torch.Generator().manual_seed(seed)
    centres = 0.7 * torch.randn(tasks, 3, WIDTH, generator=generator)
    centres[:, 2] = centres[:, 0] + 2 * torch.randn(tasks, WIDTH, generator=generator)

    def images(classes: int, n: int) -> torch.Tensor:
        noise = 0.7 * torch.randn(tasks, classes * n, WIDTH, generator=generator)
        return centres[:, :classes].repeat_interleave(n, 1) + noise

    labels = torch.arange(2).expand(tasks, -1)
    batch = FeatureBatch(images(2, 1), labels, images(2, 4), torch.full((tasks,), 2))
    return (
        batch,
        Unlabelled(images(3, 5), torch.ones(tasks, 15, dtype=torch.bool)),
        labels.repeat_interleave(4, 1),
    )


@pytest.mark.medium
def test_masks_learn_to_leave_distractors_out() -> None:
    batch, extra, labels = tasks_with_distractors(1000, 500)

    def accuracies(learner: Any, extra: Unlabelled | None) -> torch.Tensor:
        with torch.no_grad():
            right: torch.Tensor = (learner.compare(batch, extra).argmax(-1) == labels).float()
        return right.mean(1)

    learner, plain = masked(), built("semi_supervised_prototypical")
    before = accuracies(learner, extra)
    optimizer = torch.optim.Adam(learner.mask.parameters(), 0.03)
    for step in range(40):
        trained_on, without_labels, asked = tasks_with_distractors(step, 16)
        loss = torch.nn.functional.cross_entropy(
            learner.compare(trained_on, without_labels).transpose(1, 2), asked
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = accuracies(learner, extra)
    for other in (before, accuracies(plain, extra), accuracies(plain, None)):
        gained = after - other
        assert float(gained.mean()) > 4 * float(gained.std()) / len(gained) ** 0.5
