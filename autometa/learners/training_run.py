"""One training run of one learner, from a recipe to a trained learner, for everything that trains learners.

In the order in which a caller takes the steps:

1. `build_untrained`: the learner of a recipe, which knows the form of the test.
2. `choose_engine`, where many images are to come: what runs its frozen part.
3. `measure_costs`: what an image and a task cost it here.
4. `count_affordable`: how many images there is time to prepare and room to keep.
5. `Encoder.prepare`, or `PreparedImages.inputs_for` where several learners share images: the encoder inputs.
6. `hold_out_classes` and `build_pool_source`: validation episodes, and training episodes of the other classes.
7. `train_learner`: the training itself, within a budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.core.budget import UNLIMITED, MemoryBudget, TimeBudget, stopwatch
from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool, Rows
from autometa.data.splits import split_classes
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.encoder import get_device
from autometa.learners.episodes import EpisodeSampler, EpisodeSource, PoolSource
from autometa.learners.hooks import BalanceAware, ClassTrained, OptionChooser
from autometa.learners.prepared import PROBE_IMAGES, PreparedImages
from autometa.learners.recipe import Recipe
from autometa.learners.storage import Storage
from autometa.learners.trained import TrainedCosts, TrainedLearner
from autometa.learners.training import Training, TrainingRecord, Validation
from autometa.learners.training_spec import choose_training_spec
from autometa.learners.variants import Variants


@dataclass(frozen=True)
class RunShares:
    """How a training run divides what it is given."""

    held_out: float = 0.25
    """Share of the classes that are validated on and never trained on."""
    preparing: float = POLICY.prepare_share
    """Share of the training time that preparing images may take; with more images than fit, fewer are used."""
    storage: float = 0.4
    """Share of the memory left that prepared images may take; more of them go to the disk."""


RUN_SHARES = RunShares()


@dataclass(frozen=True)
class TrainingData:
    """What a learner is trained on: the encoder's `inputs` [n, ...] on the CPU, a `source` of training episodes, and
    paired `episodes` of other classes, whose rows index the inputs, to validate on."""

    inputs: torch.Tensor
    source: EpisodeSource
    episodes: ValidationEpisodes


@dataclass(frozen=True)
class TrainingListener:
    """Who hears about a training: `report` gets lines for people, `improved` the answer of every better state,
    which the learner then holds."""

    report: Callable[[str], None] = lambda _: None
    improved: Callable[[Answer], None] = lambda _: None


def build_untrained(
    recipe: Recipe,
    test: EpisodeSpec,
    device: str = "cpu",
    weights: dict[str, torch.Tensor] | None = None,
) -> TrainedLearner:
    """The untrained learner of a recipe for tests of this form; `weights` of its backbone in place of the pretrained
    ones.

    ConfigError for an unknown learner or option, or a backbone that cannot be split; WeightsError where weights are
    missing.
    """
    fitted = TrainedLearner.untrained(recipe, device, weights)
    if isinstance(fitted.learner, BalanceAware):
        fitted.learner.declare_balance(balanced=test.balanced)
    return fitted


def choose_engine(
    fitted: TrainedLearner,
    images: NDArray[np.uint8],
    n_images: int,
    budget: TimeBudget,
    report: Callable[[str], None],
) -> None:
    """Choose the fastest engine for what the learner never trains, as systems without training do for a backbone.

    It is chosen by a race on some images uint8 [n, 3, h, w], which must pay over the `n_images` to come and end
    within a share of the budget. Nothing happens where no part is frozen.
    """
    if frozen := fitted.learner.encoder.frozen:
        device = get_device(fitted.learner.encoder)
        frozen.choose_engine(images, n_images, budget.share(POLICY.engine_share), report, device)


def measure_costs(
    fitted: TrainedLearner, images: PreparedImages, test: EpisodeSpec, budget: TimeBudget = UNLIMITED
) -> TrainedCosts:
    """What a learner costs, measured on a few images and one task of mean size; the learner keeps what the task took.
    BudgetExhausted without time."""
    encoder = fitted.learner.encoder
    image_s, image_bytes = images.image_s(encoder, budget), images.image_bytes(encoder, budget)
    task_s = fitted.task_s = measure_task_s(fitted, images.images[:PROBE_IMAGES], test)
    build_s = encoder.frozen.build_s if encoder.frozen else 0.0
    return TrainedCosts(image_s, task_s, fitted.load_s + build_s, image_bytes)


def measure_task_s(fitted: TrainedLearner, images: NDArray[np.uint8], test: EpisodeSpec) -> float:
    """Measured seconds of answering a task of mean size whose images are prepared, with the slowest options that
    the learner may come to choose; `images` uint8 [n, 3, h, w] stand for those of the test."""
    ways = sum(test.ways) // 2
    support, query = ways * (sum(test.shots) // 2), ways * test.queries_per_class
    labels = np.arange(max(support, ways)) % ways
    support_rows = np.resize(np.arange(len(images)), len(labels))
    query_rows = np.resize(np.arange(len(images)), query)
    if isinstance(fitted.learner, OptionChooser):
        fitted = replace(fitted, learner=fitted.learner.slowest())
    predictor = fitted.fit(images[support_rows], labels, ways)
    predictor.predict(images[query_rows])  # prepares the images
    elapsed = stopwatch()
    predictor.predict(images[query_rows])
    return elapsed()


def count_affordable(costs: TrainedCosts, prepare_s: float, storage: Storage) -> int:
    """How many images can be prepared in so many seconds and kept in a storage."""
    by_time = prepare_s / (POLICY.slowdown * costs.image_s)
    by_room = storage.room_bytes() / costs.image_bytes
    return int(max(min(by_time, by_room), 0))


def select_labels(pool: ImagePool, rows: Rows) -> ImagePool:
    """Rows of a pool with one pixel an image: all that drawing episodes needs."""
    return replace(pool, images=pool.images[:, :, :1, :1][rows], labels=pool.labels[rows])


def hold_out_classes(
    pool: ImagePool, spec: EpisodeSpec, *, share: float, episodes: int, rng: np.random.Generator
) -> tuple[Rows, ValidationEpisodes]:
    """Class ids to train on, and so many validation episodes of the others, a `share` of all. DataError where no
    episode can be drawn of these."""
    classes, held_out = split_classes(pool, share, rng)
    return classes, ValidationEpisodes(sample_episodes(pool, held_out, spec, episodes, rng))


def build_pool_source(
    fitted: TrainedLearner,
    inputs: torch.Tensor,
    pool: ImagePool,
    classes: Rows,
    test: EpisodeSpec,
    variants: Variants | None = None,
) -> PoolSource:
    """Training episodes of these classes, as the learner's recipe draws them, over images whose encoder `inputs`
    [n, ...] and labels (`pool`) are given; or over their `variants`, which stand for the augmentation. Where
    classification is learned, a batch has classes of all datasets.
    DataError where no dataset has two such classes of two images."""
    recipe = fitted.recipe
    spec = choose_training_spec(recipe, fitted.learner, test)
    rng = np.random.default_rng([recipe.training.seed, 1])
    mixed = isinstance(fitted.learner, ClassTrained)
    sampler = EpisodeSampler(pool, classes, spec, rng, recipe.unlabelled_per_class, mixed=mixed)
    sampler.distractors = recipe.distractors
    if recipe.copies:
        return PoolSource(inputs, sampler, variants=variants)
    return PoolSource(inputs, sampler, recipe.augmentation)


def train_learner(
    fitted: TrainedLearner,
    data: TrainingData,
    budget: TimeBudget,
    *,
    listener: TrainingListener,
    least_steps: int = 0,
    memory: MemoryBudget | None = None,
) -> TrainingRecord:
    """Train in place within the budget, as the learner's recipe says: it ends with the best validated state, and
    `fitted.validation` has its figures.

    `memory`: the budget that its steps are planned to keep (None: they are not planned). BudgetExhausted where not
    even one episode fits it, or where the first steps show that fewer than `least_steps` will fit; DataError where
    the source has no more episodes. What was best before either stays in the learner.
    """
    training = Training(
        fitted.learner,
        data.source,
        Validation(data.inputs, data.episodes),
        fitted.recipe.training,
        budget,
        fitted.device,
        improved=listener.improved,
        report=listener.report,
        least_steps=least_steps,
        memory=memory,
        task_s=fitted.task_s,
    )
    record = training.run()
    fitted.memory = record.memory
    fitted.validation = {"stage": "final", "steps": record.steps, **record.best.figures()}
    return record
