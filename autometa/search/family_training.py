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
from autometa.core.speed import SLOWDOWN
from autometa.data.episodes import EpisodeBatch, EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool, Rows
from autometa.data.splits import split_classes
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.episodes import InputEpisodes
from autometa.learners.forms import pool_source, training_form, usual_form
from autometa.learners.hooks import BalanceAware
from autometa.learners.prepared import PROBED, PreparedImages
from autometa.learners.recipe import Recipe
from autometa.learners.trained import TrainedCosts, TrainedLearner
from autometa.learners.training import Training, Validation
from autometa.planning.forecast import answering_s

HELD_OUT = 0.25
"""Share of the classes given that training validates on; the classes that the caller holds out are not given."""
PREPARE_SHARE = 0.5
"""Share of the budget that preparing the images may take."""
LEAST_STEPS = 15
"""Fewer are not worth beginning."""
LEAST_VALIDATIONS = 12
"""Tasks that must be answered, at least, to train at all: the first few, untrained, and once more."""
SINGLE = 3
"""Episodes that are answered one at a time, as in meta-test, to measure what one takes."""


@dataclass(frozen=True)
class TrainingPool:
    """What families are trained on: images with labels int64 [n], the dataset of every class, and the form of the
    test's episodes. All classes that have images may be trained on or, a quarter of them, validated on."""

    images: PreparedImages
    labels: Rows
    dataset_of_class: Rows
    test: EpisodeSpec
    device: str = "cpu"

    @cached_property
    def pool(self) -> ImagePool:
        """Labels without images, the classes that there are numbered from 0 on."""
        known, labels = np.unique(self.labels, return_inverse=True)
        _, datasets = np.unique(self.dataset_of_class[known], return_inverse=True)
        names = tuple(map(str, range(int(datasets.max(initial=-1)) + 1)))
        return ImagePool(self.images.images[:, :, :1, :1], labels.astype(np.int64), datasets, names)


def train_family(
    recipe: Recipe,
    material: TrainingPool,
    budget: TimeBudget,
    *,
    weights: dict[str, torch.Tensor] | None = None,
    fits: Callable[[TrainedCosts], bool] = lambda _: True,
    report: Callable[[str], None] = lambda _: None,
) -> TrainedLearner:
    """The learner of a recipe, trained within the budget; its backbone starts from pretrained weights or from
    `weights`. `fits` is asked, before the work begins, whether a learner of such costs could serve.

    BudgetExhausted where time or memory do not do (or `fits` says no), as soon as that is known; Diverged;
    ConfigError where the backbone has no part that the family could train; WeightsError where it has no weights
    here; DataError where there are too few classes.
    """
    if not len(material.images):
        raise DataError("there are no images to train on")
    with memory_as_budget(recipe.learner):
        fitted = TrainedLearner.untrained(recipe, material.device, weights)
        if isinstance(fitted.learner, BalanceAware):
            fitted.learner.declare_balance(balanced=material.test.balanced)
        _check_costs(measured(fitted, material, budget), recipe, budget, fits)
        inputs = material.images.inputs_for(fitted.learner.encoder, budget.share(PREPARE_SHARE))
        _train(fitted, inputs, material, budget, report)
    return fitted


def measured(fitted: TrainedLearner, material: TrainingPool, budget: TimeBudget) -> TrainedCosts:
    """What the learner costs in meta-test at most, measured on a few images and one task of mean size."""
    image_s = material.images.image_s(fitted.learner.encoder, budget)
    task_s = answering_s(fitted, material.images.images[:PROBED], material.test)
    return TrainedCosts(image_s, task_s, fitted.load_s)


def _check_costs(
    costs: TrainedCosts, recipe: Recipe, budget: TimeBudget, fits: Callable[[TrainedCosts], bool]
) -> None:
    """BudgetExhausted unless meta-test and a short training fit."""
    told = f"{recipe.learner}: {costs.image_s:.3f} s an image, {costs.task_s:.2f} s a task"
    if not fits(costs):
        raise BudgetExhausted(f"{told} do not fit")
    needed_s = SLOWDOWN * LEAST_VALIDATIONS * costs.task_s
    if not budget.fits(needed_s):
        raise BudgetExhausted(f"{told}: {max(budget.left_s(), 0):.1f} s are too few to train it")


def _train(
    fitted: TrainedLearner,
    inputs: torch.Tensor,
    material: TrainingPool,
    budget: TimeBudget,
    report: Callable[[str], None],
) -> None:
    """Train in place, validated on a part of the classes; the best state is kept. Diverged where the loss is no
    number and nothing better was found before."""
    recipe, pool = fitted.recipe, material.pool
    rng = np.random.default_rng(recipe.training.seed)
    fit, held = split_classes(pool, HELD_OUT, rng)
    form = training_form(recipe, fitted.learner, material.test)
    asked = sample_episodes(pool, held, usual_form(material.test), recipe.validation_episodes, rng)
    training = Training(
        fitted.learner,
        pool_source(recipe, inputs, pool.labels, fit, pool.dataset_of_class, form),
        Validation(inputs, ValidationEpisodes(asked)),
        recipe.training,
        budget,
        fitted.device,
        report=report,
        least_steps=LEAST_STEPS,
    )
    record = training.run()
    if record.diverged and record.best is record.untrained:
        raise Diverged(f"{recipe.learner} after {record.steps} steps: {record.ended}")
    fitted.validation = {"stage": "final", "steps": record.steps, **record.best.figures()}
    report(
        f"{recipe.learner}: {record.steps} steps in {record.seconds:.1f} s, {record.ended}; "
        f"{100 * record.untrained.mean:.1f} before, {100 * record.best.mean:.1f} after"
    )


def answer_episodes(
    fitted: TrainedLearner, images: PreparedImages, episodes: ValidationEpisodes, budget: TimeBudget
) -> tuple[Answer, TrainedCosts]:
    """The answer on paired episodes whose rows index `images`, and what an image and a task cost. BudgetExhausted as
    soon as the measured pace tells that the budget is too short, or where memory does not do."""
    with memory_as_budget(fitted.recipe.learner):
        inputs = images.inputs_for(fitted.learner.encoder, budget)
        answering = _Answering(fitted, inputs, episodes, budget)
        costs = TrainedCosts(
            images.image_s(fitted.learner.encoder, budget), answering.single_s(), fitted.load_s
        )
        return episodes.measure_with_loss(answering.scores()), costs


class _Answering:
    """Episodes answered a few at a time, as many as there are threads to answer them on, under a budget."""

    def __init__(
        self, fitted: TrainedLearner, inputs: torch.Tensor, episodes: ValidationEpisodes, budget: TimeBudget
    ) -> None:
        self._fitted, self._inputs, self._budget = fitted, inputs, budget
        self._batches = episodes.batches
        self._to_come = sum(map(_images_of, self._batches))
        self._tasks = len(episodes.episodes)
        self._spent_s, self._done = 0.0, 0

    def single_s(self) -> float:
        """Measured seconds for a task of mean size, alone; some of all sizes are measured."""
        every = [part for batch in self._batches for part in _parts(batch, 1)]
        chosen = [every[(2 * place + 1) * len(every) // (2 * SINGLE)] for place in range(SINGLE)]
        self._answer(chosen[0])  # the first one ever is slower than those to come
        self._spent_s, self._done = 0.0, 0
        for episode in chosen:
            self._answer(episode)
        task_s = self._spent_s / self._done * self._to_come / self._tasks
        self._spent_s, self._done = 0.0, 0
        return task_s

    def scores(self) -> list[torch.Tensor]:
        """Scores [b, q, n] per batch of the episodes."""
        n = torch.get_num_threads()
        return [
            torch.cat([_widened(self._answer(part), int(batch.ways.max())) for part in _parts(batch, n)])
            for batch in self._batches
        ]

    def _answer(self, part: EpisodeBatch) -> torch.Tensor:
        self._check()
        elapsed = stopwatch(self._budget.clock)
        learner = self._fitted.learner.eval()
        with torch.no_grad():
            scores: torch.Tensor = learner(InputEpisodes.of_rows(self._inputs, part).to(self._fitted.device))
        self._spent_s += elapsed()
        self._done += _images_of(part)
        return scores.float().cpu()

    def _check(self) -> None:
        """BudgetExhausted where what is to come does not fit at the pace so far."""
        image_s = self._spent_s / self._done if self._done else 0.0
        needed_s = image_s * (self._to_come - self._done)
        if self._budget.left_s() <= 0 or not self._budget.fits(needed_s):
            raise BudgetExhausted(
                f"{self._fitted.recipe.learner} needs {needed_s:.1f} s more for {self._tasks} validation episodes, "
                f"{max(self._budget.left_s(), 0):.1f} s are left"
            )


def _widened(scores: torch.Tensor, ways: int) -> torch.Tensor:
    """Scores [b, q, n] with -inf for further classes."""
    return torch.nn.functional.pad(scores, (0, ways - scores.shape[-1]), value=float("-inf"))


def _images_of(batch: EpisodeBatch) -> int:
    return int((batch.support_labels >= 0).sum() + (batch.query_labels >= 0).sum())


def _parts(batch: EpisodeBatch, n: int) -> Iterator[EpisodeBatch]:
    """The batch, `n` episodes at a time."""
    tensors = (batch.support_rows, batch.support_labels, batch.query_rows, batch.query_labels, batch.ways)
    for parts in zip(*(torch.split(tensor, n) for tensor in tensors), strict=True):
        yield EpisodeBatch(*parts)


@contextmanager
def memory_as_budget(what: str) -> Iterator[None]:
    """Turns running out of memory into BudgetExhausted."""
    told = None
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        told = f"{what}: out of memory ({error})"
    if told:  # only here, as an error holds on to what its frames hold
        raise BudgetExhausted(told)
