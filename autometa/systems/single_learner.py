"""One meta-training of one learner within a budget: pool → split → measure → train → save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.core.budget import Limits, Machine, TimeBudget, process_age_s, stopwatch
from autometa.core.errors import BudgetExhausted, DataError
from autometa.core.speed import SLOWDOWN
from autometa.data.episodes import sample_episodes
from autometa.data.images import ImagePool, Rows, take_share_of_each_class
from autometa.data.splits import split_classes
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.episodes import EpisodeSource, TaskSource
from autometa.learners.forms import pool_source, training_form
from autometa.learners.hooks import BalanceAware
from autometa.learners.recipe import Recipe
from autometa.learners.storage import Storage
from autometa.learners.trained import TrainedLearner
from autometa.learners.training import Training, Validation
from autometa.planning.forecast import answering_s
from autometa.planning.plan import CLOSING_S, TASK_OVERHEAD_S

HELD_OUT = 0.25
PREPARE_SHARE = 0.4
"""Share of the training time that preparing images may take; where it does not do, fewer are used."""
POOL_SHARE = 0.4
"""Share of the memory left that prepared images may take; more of them go to the disk."""
PROBE_IMAGES = 24
FINISH_S = 1.5
SAVE_EVERY_S = 5.0
ENDLESS = 1_000_000


@dataclass
class SingleLearnerSystem:
    """Trains what `recipe` says. A valid learner is on disk in `checkpoint` before any image is read, and a
    better one whenever validation finds it (None: only the caller saves)."""

    recipe: Recipe
    test: TestSpec
    limits: Limits
    checkpoint: Path | None = None
    report: Callable[[str], None] = print
    start_s: float = 5.0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.recipe.training.seed)
        self._since_saved = stopwatch()

    def bootstrap(self) -> TrainedLearner:
        """The untrained learner, saved."""
        self._fitted = TrainedLearner.untrained(self.recipe, Machine.detect().device)
        if isinstance(self._fitted.learner, BalanceAware):
            self._fitted.learner.declare_balance(balanced=self.test.episodes.balanced)
        self._save()
        return self._fitted

    def run(self, pool: ImagePool, tasks: Any = None) -> TrainedLearner:
        """Train on the pool, or, where the recipe wants the stream, on `tasks` (a generator as the challenge
        gives it) with validation on the pool; a valid learner, whatever happens to the time."""
        try:
            self._train(pool, tasks)
        except (BudgetExhausted, DataError) as error:
            self.report(f"not trained further: {error}")
        return self._fitted

    def _train(self, pool: ImagePool, tasks: Any) -> None:
        rows, storage, reserve_s = self._affordable(pool)
        budget = self._budget(reserve_s)
        images = pool.images if len(rows) == len(pool.images) else pool.images[rows]
        inputs = self._fitted.learner.encoder.prepare(images, budget, storage)
        if inputs.nbytes > storage.memory_bytes:
            self.report(f"{inputs.nbytes / 1e9:.2g} GB of prepared images are in a file: memory is too small")
        labels = pool.labels[rows]
        if self.recipe.data == "stream":
            fit, held = np.empty(0, np.int64), np.unique(labels)
        else:
            fit, held = split_classes(pool, HELD_OUT, self._rng)
        part = ImagePool(pool.images[:, :, :1, :1][rows], labels, pool.dataset_of_class, pool.datasets)
        episodes = sample_episodes(part, held, self.test.episodes, self.recipe.validation_episodes, self._rng)
        training = Training(
            self._fitted.learner,
            self._source(inputs, labels, fit, pool, tasks),
            Validation(inputs, ValidationEpisodes(episodes)),
            self.recipe.training,
            budget,
            self._fitted.device,
            improved=self._improved,
            report=self.report,
        )
        record = training.run()
        self._fitted.validation = {"stage": "final", "steps": record.steps, **record.best.figures()}
        self.report(
            f"{self.recipe.learner}: {record.steps} steps in {record.seconds:.1f} s, {record.ended}; "
            f"{100 * record.untrained.mean:.1f} before, {100 * record.best.mean:.1f} after"
        )
        self._save()

    def _source(
        self, inputs: torch.Tensor, labels: Rows, fit: Rows, pool: ImagePool, tasks: Any
    ) -> EpisodeSource:
        if self.recipe.data == "stream":
            return TaskSource(tasks(ENDLESS), self._fitted.prepare)
        form = training_form(self.recipe, self._fitted.learner, self.test.episodes)
        return pool_source(self.recipe, inputs, labels, fit, pool.dataset_of_class, form)

    def _affordable(self, pool: ImagePool) -> tuple[Rows, Storage, float]:
        """Rows of the pool that time and room allow to prepare, where they are to be kept, and seconds to reserve
        for meta-test; measured on a few images and one task of mean size."""
        probe = pool.images[
            self._rng.choice(len(pool.images), min(PROBE_IMAGES, len(pool.images)), replace=False)
        ]
        encoder = self._fitted.learner.encoder
        encoder.prepare(probe[:2])
        elapsed = stopwatch()
        example = encoder.prepare(probe)
        image_s = elapsed() / len(probe)
        reserve_s = self._meta_test_s(probe, image_s)
        left_s = min(self.limits.train.left_s(), self.limits.run.left_s() - reserve_s)
        by_time = PREPARE_SHARE * left_s / (SLOWDOWN * image_s)
        storage = Storage(POOL_SHARE * self.limits.memory.left_bytes())
        most = int(max(min(by_time, storage.room_bytes() / example[0].nbytes), 0))
        if most < len(pool.images):
            self.report(
                f"{most} of {len(pool.images)} images fit: {1 / image_s:.0f} images/s are prepared here"
            )
        share = min(most / len(pool.images), 1.0)
        return take_share_of_each_class(pool.labels, share, self._rng), storage, reserve_s

    def _meta_test_s(self, images: NDArray[np.uint8], image_s: float) -> float:
        """Predicted seconds of meta-test."""
        task_s = answering_s(self._fitted, images, self.test.episodes) + TASK_OVERHEAD_S
        work_s = self.test.embedded_images * image_s + self.test.tasks * task_s
        return self.test.start_s(self.start_s) + SLOWDOWN * work_s + CLOSING_S

    def _budget(self, reserve_s: float) -> TimeBudget:
        """What is left for training before saving and meta-test."""
        run, train = self.limits.run, self.limits.train
        left_s = min(train.left_s(), run.left_s() - reserve_s) - FINISH_S
        self.report(f"plan: {max(left_s, 0):.1f} s to train, {reserve_s:.1f} s reserved for meta-test")
        return TimeBudget(train.clock() + left_s, train.clock)

    def _improved(self, answer: Answer) -> None:
        self._fitted.validation = {"stage": "training", **answer.figures()}
        if self._since_saved() > SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        if self.checkpoint is not None:
            self._fitted.save(self.checkpoint)
            self._since_saved = stopwatch()
            stage = self._fitted.validation["stage"]
            self.report(f"learner on disk ({stage}, {process_age_s():.1f} s after the start)")
