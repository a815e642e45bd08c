"""Training one family within a budget, and its answers on paired validation episodes, with what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from autometa.backbones.engines import is_out_of_memory
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.errors import BudgetExhausted, DataError, Diverged
from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeBatch, EpisodeSpec
from autometa.data.images import ImagePool, Rows
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.episodes import InputEpisodes
from autometa.learners.prepared import PreparedImages
from autometa.learners.recipe import Recipe
from autometa.learners.trained import TrainedCosts, TrainedLearner
from autometa.learners.training_run import (
    RunShares,
    TrainingData,
    TrainingListener,
    build_pool_source,
    build_untrained,
    hold_out_classes,
    measure_costs,
    train_learner,
)
from autometa.learners.training_spec import cap_spec

FAMILY_SHARES = RunShares(preparing=POLICY.family_prepare_share)
"""Of what a family is given; the classes that the caller holds out are not among it. Where images are shared with
families before, nothing is spent on preparing them."""
LEAST_STEPS = 15
"""Fewer are not worth beginning."""
LEAST_VALIDATIONS = 12
"""Tasks that must be answered, at least, to train at all: the first few, untrained, and once more."""
SINGLE_EPISODES = 3
"""Episodes that are answered one at a time, as in meta-test, to measure what one takes."""


@dataclass(frozen=True)
class TrainingSet:
    """What families are trained on: images with labels int64 [n], the dataset of every class, and the form of the
    test's episodes. All classes that have images are trained on or, a quarter of them, validated on."""

    images: PreparedImages
    labels: Rows
    dataset_of_class: Rows
    test: EpisodeSpec
    device: str = "cpu"

    @cached_property
    def pool(self) -> ImagePool:
        """Labels with one pixel an image, the classes that have images numbered from 0 on."""
        known, labels = np.unique(self.labels, return_inverse=True)
        _, datasets = np.unique(self.dataset_of_class[known], return_inverse=True)
        names = tuple(map(str, range(int(datasets.max(initial=-1)) + 1)))
        return ImagePool(self.images.images[:, :, :1, :1], labels.astype(np.int64), datasets, names)


def train_family(
    recipe: Recipe,
    training_set: TrainingSet,
    budget: TimeBudget,
    *,
    fits: Callable[[TrainedCosts], bool] = lambda _: True,
    report: Callable[[str], None] = lambda _: None,
) -> TrainedLearner:
    """The learner of a recipe, trained within the budget. `fits` is asked, before the work begins, whether a learner
    of such costs could serve.

    BudgetExhausted where time or memory is too short (or `fits` says no), as soon as that is known; Diverged where
    the loss is no number and nothing better was found before; ConfigError where the backbone has no part that the
    family could train; WeightsError where it has no weights here; DataError where there are too few classes.
    """
    if not len(training_set.images):
        raise DataError("there are no images to train on")
    test, shares = training_set.test, FAMILY_SHARES
    with memory_as_budget(recipe.learner):
        fitted = build_untrained(recipe, test, training_set.device)
        _check_costs(recipe, measure_costs(fitted, training_set.images, test, budget), budget, fits)
        inputs = training_set.images.inputs_for(fitted.learner.encoder, budget.share(shares.preparing))
        rng = np.random.default_rng(recipe.training.seed)
        classes, episodes = hold_out_classes(
            training_set.pool,
            cap_spec(test),
            share=shares.held_out,
            episodes=recipe.validation_episodes,
            rng=rng,
        )
        source = build_pool_source(fitted, inputs, training_set.pool, classes, test)
        data = TrainingData(inputs, source, episodes)
        record = train_learner(
            fitted, data, budget, listener=TrainingListener(report), least_steps=LEAST_STEPS
        )
    if record.diverged and record.best is record.untrained:
        raise Diverged(f"{recipe.learner} after {record.steps} steps: {record.ended}")
    report(f"{recipe.learner}: {record.summary()}")
    return fitted


def _check_costs(
    recipe: Recipe, costs: TrainedCosts, budget: TimeBudget, fits: Callable[[TrainedCosts], bool]
) -> None:
    """BudgetExhausted unless meta-test and a short training fit."""
    measured = f"{recipe.learner}: {costs.image_s:.3f} s an image, {costs.task_s:.2f} s a task"
    if not fits(costs):
        raise BudgetExhausted(f"{measured} do not fit")
    if not budget.fits(POLICY.slowdown * LEAST_VALIDATIONS * costs.task_s):
        raise BudgetExhausted(f"{measured}: {max(budget.left_s(), 0):.1f} s are too few to train it")


def answer_episodes(
    fitted: TrainedLearner, images: PreparedImages, episodes: ValidationEpisodes, budget: TimeBudget
) -> tuple[Answer, TrainedCosts]:
    """The answer on paired episodes whose rows index `images`, and what an image and a task cost. BudgetExhausted as
    soon as the measured speed shows that the budget is too short, or where memory is."""
    with memory_as_budget(fitted.recipe.learner):
        inputs = images.inputs_for(fitted.learner.encoder, budget)
        answering = _Answering(fitted, inputs, episodes, budget)
        image_s = images.image_s(fitted.learner.encoder, budget)
        costs = TrainedCosts(image_s, answering.measure_task_s(), fitted.load_s)
        return episodes.measure_with_loss(answering.compute_scores()), costs


class _Answering:
    """Episodes answered a few at a time, as many as there are threads to answer them on, under a budget."""

    def __init__(
        self, fitted: TrainedLearner, inputs: torch.Tensor, episodes: ValidationEpisodes, budget: TimeBudget
    ) -> None:
        self._fitted, self._inputs, self._budget = fitted, inputs, budget
        self._batches = episodes.batches
        self._images = sum(map(_count_images, self._batches))
        self._tasks = len(episodes.episodes)
        self._spent_s, self._done = 0.0, 0

    def measure_task_s(self) -> float:
        """Measured seconds for a task of mean size, alone; some of all sizes are measured."""
        n = SINGLE_EPISODES
        every = [part for batch in self._batches for part in _split(batch, 1)]
        chosen = [every[(2 * place + 1) * len(every) // (2 * n)] for place in range(n)]
        self._answer(chosen[0])  # the first one ever is slower than those to come
        self._spent_s, self._done = 0.0, 0
        for episode in chosen:
            self._answer(episode)
        task_s = self._spent_s / self._done * self._images / self._tasks
        self._spent_s, self._done = 0.0, 0
        return task_s

    def compute_scores(self) -> list[torch.Tensor]:
        """Scores [b, q, n] per batch of the episodes; -inf for classes that an episode does not have."""
        scores = []
        for batch in self._batches:
            ways, parts = int(batch.ways.max()), []
            for part in map(self._answer, _split(batch, torch.get_num_threads())):
                further = ways - part.shape[-1]
                parts.append(torch.nn.functional.pad(part, (0, further), value=float("-inf")))
            scores.append(torch.cat(parts))
        return scores

    def _answer(self, part: EpisodeBatch) -> torch.Tensor:
        """Scores of a part of the episodes. BudgetExhausted where the rest does not fit at the speed so far."""
        image_s = self._spent_s / self._done if self._done else 0.0
        needed_s = image_s * (self._images - self._done)
        if self._budget.left_s() <= 0 or not self._budget.fits(needed_s):
            raise BudgetExhausted(
                f"{self._fitted.recipe.learner} needs {needed_s:.1f} s more for {self._tasks} validation episodes, "
                f"{max(self._budget.left_s(), 0):.1f} s are left"
            )
        elapsed = stopwatch(self._budget.clock)
        learner = self._fitted.learner.eval()
        with torch.no_grad():
            scores: torch.Tensor = learner(InputEpisodes.of_rows(self._inputs, part).to(self._fitted.device))
        self._spent_s += elapsed()
        self._done += _count_images(part)
        return scores.float().cpu()


def _count_images(batch: EpisodeBatch) -> int:
    return int((batch.support_labels >= 0).sum() + (batch.query_labels >= 0).sum())


def _split(batch: EpisodeBatch, n: int) -> Iterator[EpisodeBatch]:
    """The batch, `n` episodes at a time."""
    tensors = (batch.support_rows, batch.support_labels, batch.query_rows, batch.query_labels, batch.ways)
    for parts in zip(*(torch.split(tensor, n) for tensor in tensors), strict=True):
        yield EpisodeBatch(*parts)


@contextmanager
def memory_as_budget(what: str) -> Iterator[None]:
    """Turns running out of memory into BudgetExhausted."""
    message = None
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        message = f"{what}: out of memory ({error})"
    if message:  # only here, as an error holds on to what its frames hold
        raise BudgetExhausted(message)
