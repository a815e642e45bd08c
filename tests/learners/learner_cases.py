"""Tiny learners, episodes and pools for the tests of learners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool
from autometa.evaluation.validation_episodes import ValidationEpisodes
from autometa.heads import FeatureBatch
from autometa.learners.augmentation import NO_AUGMENTATION, Augmentation
from autometa.learners.base import EpisodicLearner
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import EpisodeSampler, InputEpisodes, PoolSource, stack_episodes
from autometa.learners.metric.base import MetricLearner
from autometa.learners.recipe import LEARNERS, Recipe, build_learner
from autometa.learners.training import Validation

AnyModule = TypeVar("AnyModule", bound=torch.nn.Module)

PX = 16
TINY = EncoderSpec(network="conv4", px=PX, channels=8)
WIDTH = 8
METRIC = [name for name, spec in LEARNERS.items() if spec.family == "metric"]


def built(name: str, encoder: EncoderSpec = TINY, **options: Any) -> MetricLearner:
    """A metric learner as after some training, in evaluation mode: batch norm knows the statistics of
    images, and no weights or biases are all zero."""
    learner = build_learner(Recipe(learner=name, encoder=encoder, options=options))
    assert isinstance(learner, MetricLearner)
    unzeroed(learner)
    norms = [module for module in learner.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        learner.train().loss(image_episode(5, 3, 3, seed=99))
    for norm in norms:
        norm.momentum = 0.1
    return learner.eval()


def images_like(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Noisy uint8 images [n, 3, PX, PX] whose coarse pattern tells the label."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(int(labels.max()) + 1, 3, 4, 4, generator=generator)
    noise = 40 * torch.randn(len(labels), 3, PX, PX, generator=generator)
    clean = torch.nn.functional.interpolate(patterns[labels] * 200, (PX, PX))
    return (clean + noise).clamp(0, 255).to(torch.uint8)


def image_episode(ways: int, shots: int, queries: int, seed: int = 0) -> InputEpisodes:
    """One episode of images."""
    labels = torch.arange(ways)
    support, query = labels.repeat_interleave(shots), labels.repeat_interleave(queries)
    images = images_like(torch.cat([support, query]), seed)[None]
    return InputEpisodes(
        images[:, : len(support)], support[None], images[:, len(support) :], query[None], torch.tensor([ways])
    )


def features(ways: int, shots: int, queries: int, d: int = WIDTH, seed: int = 0) -> FeatureBatch:
    """One episode of embeddings."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(ways, d, generator=generator)
    labels = torch.arange(ways).repeat_interleave(shots)
    support = means[labels] + 0.5 * torch.randn(ways * shots, d, generator=generator)
    asked = means.repeat_interleave(queries, 0)
    query = asked + 0.5 * torch.randn(ways * queries, d, generator=generator)
    return FeatureBatch(support[None], labels[None], query[None], torch.tensor([ways]))


def query_labels(batch: FeatureBatch) -> torch.Tensor:
    """Labels [1, q] of the queries of `features`."""
    ways = int(batch.ways)
    return torch.arange(ways).repeat_interleave(batch.query.shape[1] // ways)[None]


def red_pool(classes: int = 16, per_class: int = 12, px: int = 8) -> ImagePool:
    """Classes told by how red they are; green and blue say nothing and vary much more."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    n = len(labels)
    pixels = rng.normal(0, 8, (n, 3, px, px))
    pixels[:, 0] += rng.permutation(np.linspace(90, 166, classes))[labels][:, None, None]
    pixels[:, 1:] += rng.uniform(20, 236, (n, 2, 1, 1))
    return ImagePool(
        pixels.clip(0, 255).astype(np.uint8), labels, np.zeros(classes, dtype=np.int64), ("RED",)
    )


def pool_source(
    pool: ImagePool,
    spec: EpisodeSpec,
    *,
    classes: int | None = None,
    seed: int = 0,
    unlabelled: int = 0,
    augmentation: Augmentation = NO_AUGMENTATION,
) -> PoolSource:
    """Episodes out of the first `classes` classes of a pool."""
    rng = np.random.default_rng(seed)
    known = np.arange(classes or pool.classes)
    sampler = EpisodeSampler(pool, known, spec, rng, unlabelled)
    return PoolSource(torch.from_numpy(pool.images), sampler, augmentation)


def labels_only(labels: np.ndarray[Any, Any], dataset_of_class: np.ndarray[Any, Any]) -> ImagePool:
    """A pool whose images are black pixels."""
    names = tuple(map(str, range(int(dataset_of_class.max()) + 1)))
    return ImagePool(np.zeros((len(labels), 3, 1, 1), np.uint8), labels, dataset_of_class, names)


def held_out(pool: ImagePool, spec: EpisodeSpec, first: int, episodes: int = 30) -> Validation:
    """Validation episodes of the classes from `first` on."""
    drawn = sample_episodes(pool, np.arange(first, pool.classes), spec, episodes, np.random.default_rng(9))
    return Validation(torch.from_numpy(pool.images), ValidationEpisodes(drawn))


def in_order(episodes: InputEpisodes, order: torch.Tensor) -> InputEpisodes:
    """The episodes with their support in another order."""
    return replace(
        episodes, support=episodes.support[:, order], support_labels=episodes.support_labels[:, order]
    )


def renamed(episodes: InputEpisodes, order: torch.Tensor) -> InputEpisodes:
    """The episodes with `order[label]` for every label of the support."""
    return replace(episodes, support_labels=order[episodes.support_labels])


def assert_batch_is_one_by_one(
    learner: EpisodicLearner, alone: Sequence[InputEpisodes], tolerance: float
) -> None:
    """Episodes of several forms are answered in one padded batch as each by itself; classes that an episode does
    not have are out of the question."""
    together = learner(stack_episodes(alone)).detach()
    for place, episodes in enumerate(alone):
        ways, queries = int(episodes.ways), episodes.query.shape[1]
        scores, own = together[place, :queries], learner(episodes)[0].detach()
        torch.testing.assert_close(scores[:, :ways], own, atol=tolerance, rtol=tolerance)
        assert (scores[:, ways:] == -torch.inf).all()


def assert_loss_falls(learner: EpisodicLearner, episodes: InputEpisodes) -> None:
    """A small step against the gradient lowers the loss, with the same random numbers."""
    trained = [p for p in learner.parameters() if p.requires_grad]

    def loss() -> torch.Tensor:
        torch.manual_seed(0)
        return learner.loss(episodes)

    before = loss()
    gradients = torch.autograd.grad(before, trained)
    length = sum(g.square().sum() for g in gradients).sqrt()
    with torch.no_grad():
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.sub_(1e-3 * gradient / length)
        assert loss() < before


def assert_validation_equals_answering(learner: EpisodicLearner) -> None:
    """Validation, which embeds every image once, gives what answering the episodes one by one gives."""
    labels = np.repeat(np.arange(8), 6)
    images = images_like(torch.from_numpy(labels), 3).numpy()
    pool = ImagePool(images, labels, np.zeros(8, dtype=np.int64), ("D",))
    spec = EpisodeSpec(ways=(2, 5), shots=(1, 3), queries_per_class=2)
    validation = ValidationEpisodes(sample_episodes(pool, np.arange(8), spec, 7, np.random.default_rng(0)))
    inputs = learner.encoder.prepare(pool.images)
    ours = learner.train().validate(inputs, validation)
    theirs = EpisodicLearner.validate(learner, inputs, validation)
    for a, b in zip(ours.scores, theirs.scores, strict=True):
        torch.testing.assert_close(a.softmax(-1), b.softmax(-1), atol=1e-4, rtol=0)
    assert ours.accuracies.shape == (7,)


def unzeroed(learner: AnyModule) -> AnyModule:
    """The learner, with random numbers in parameters that were all zero."""
    torch.manual_seed(1)
    for parameter in learner.parameters():
        if parameter.ndim and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return learner


def only_first_query(episodes: InputEpisodes) -> InputEpisodes:
    """The episodes with one query each."""
    return replace(episodes, query=episodes.query[:, :1], query_labels=episodes.query_labels[:, :1])


def of_one_colour(episodes: InputEpisodes, value: int) -> InputEpisodes:
    """The episodes with all pixels of all images alike."""
    support, query = (torch.full_like(images, value) for images in (episodes.support, episodes.query))
    return replace(episodes, support=support, query=query)
