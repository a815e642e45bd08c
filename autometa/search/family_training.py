"""Training one family within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.chunks import is_out_of_memory
from autometa.core.errors import BudgetExhausted, DataError, Diverged
from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool, Rows
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


@dataclass(frozen=True)
class TrainingSet:
    """What families are trained on: images with labels int64 [n], the dataset of every class, and the form of the
    test's episodes; and the `memory` that training may take (None: any). All classes that have images are trained on
    or, a quarter of them, validated on."""

    images: PreparedImages
    labels: Rows
    dataset_of_class: Rows
    test: EpisodeSpec
    device: str = "cpu"
    memory: MemoryBudget | None = None

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
    report: Callable[[str], None] = lambda _: None,
    weights: dict[str, torch.Tensor] | None = None,
) -> TrainedLearner:
    """The learner of a recipe, trained within the budget. `weights` of its backbone in place of the pretrained ones.

    BudgetExhausted where time or memory is too short, as soon as that is known; Diverged where the loss is no number
    and nothing better was found before; ConfigError where the backbone has no part that the family could train;
    WeightsError where it has no weights here; DataError where there are too few classes.
    """
    if not len(training_set.images):
        raise DataError("there are no images to train on")
    test, shares = training_set.test, FAMILY_SHARES
    with memory_as_budget(recipe.learner):
        fitted = build_untrained(recipe, test, training_set.device, weights)
        _check_costs(recipe, measure_costs(fitted, training_set.images, test, budget), budget)
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
            fitted,
            data,
            budget,
            listener=TrainingListener(report),
            least_steps=LEAST_STEPS,
            memory=training_set.memory,
        )
    if record.diverged and record.best is record.untrained:
        raise Diverged(f"{recipe.learner} after {record.steps} steps: {record.ended}")
    report(f"{recipe.learner}: {record.summary()}")
    return fitted


def _check_costs(recipe: Recipe, costs: TrainedCosts, budget: TimeBudget) -> None:
    """BudgetExhausted unless a short training fits."""
    if not budget.fits(POLICY.slowdown * LEAST_VALIDATIONS * costs.task_s):
        raise BudgetExhausted(
            f"{recipe.learner}: {costs.task_s:.2f} s a task: {max(budget.left_s(), 0):.1f} s are too few to train it"
        )


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
