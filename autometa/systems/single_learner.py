"""One meta-training of one learner within a budget: pool → measure → prepare → hold out classes → train → save."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autometa.core.budget import Limits, TimeBudget
from autometa.core.errors import FAILURES, describe
from autometa.core.machine import Machine
from autometa.core.progress import Progress
from autometa.core.time_policy import POLICY
from autometa.data.episodes import sample_episodes
from autometa.data.images import ImagePool, Rows, take_share_of_each_class
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.episodes import TaskSource
from autometa.learners.prepared import PROBE_IMAGES, PreparedImages
from autometa.learners.recipe import Recipe
from autometa.learners.storage import Storage
from autometa.learners.trained import TrainedCosts, TrainedLearner
from autometa.learners.training_run import (
    RUN_SHARES,
    RunShares,
    TrainingData,
    TrainingListener,
    build_pool_source,
    build_untrained,
    choose_engine,
    count_affordable,
    hold_out_classes,
    measure_costs,
    select_labels,
    train_learner,
)
from autometa.model.learner_folder import LearnerFolder
from autometa.planning.plan import Costs, left_for_training_s, meta_test_s

ENDLESS = 1_000_000
"""Tasks asked of a stream."""


@dataclass
class SingleLearnerSystem:
    """Trains what `recipe` says. A valid learner is on disk in `checkpoint` before any image is read, and a
    better one whenever validation finds it (None: only the caller saves). `start_s`: seconds that starting a process
    with all imports takes."""

    recipe: Recipe
    test: TestSpec
    limits: Limits
    checkpoint: Path | None = None
    report: Callable[[str], None] = print
    start_s: float = 5.0
    shares: RunShares = RUN_SHARES

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.recipe.training.seed)
        self._folder = LearnerFolder(self.checkpoint, self.report)

    def bootstrap(self) -> TrainedLearner:
        """The untrained learner, saved, or what an earlier run has trained."""
        self._fitted = build_untrained(self.recipe, self.test.episodes, Machine.detect().device)
        self._folder.resume(TrainedLearner)
        self._folder.save(self._fitted)
        return self._folder.best(self._fitted)

    def run(self, pool: ImagePool, tasks: Any = None) -> TrainedLearner:
        """Train on the pool, or, where the recipe wants the stream, on `tasks` (a generator as the challenge
        gives it) with validation on the pool; a valid learner, whatever happens."""
        try:
            self._train(pool, tasks)
        except FAILURES as error:
            self.report(f"not trained further: {describe(error)}")
        return self._folder.best(self._fitted)

    def _train(self, pool: ImagePool, tasks: Any) -> None:
        """Measure on a few images, reserve meta-test, prepare as many images as fit, train, save."""
        n = min(PROBE_IMAGES, len(pool.images))
        probe = pool.images[self._rng.choice(len(pool.images), n, replace=False)]
        to_come = int(self.test.embedded_images) + len(pool.images)
        if not self.recipe.training.repeatable:  # a race is decided by time
            choose_engine(self._fitted, probe, to_come, self.limits.train, self.report)
        costs = measure_costs(self._fitted, PreparedImages(probe), self.test.episodes)
        reserve_s = meta_test_s([], self.test, Costs(self.start_s, {}, task_s=0.0, learners=(costs,)))
        storage = Storage(self.shares.storage * self.limits.memory.left_bytes())
        rows = self._choose_rows(pool, costs, reserve_s, storage)
        left_s = left_for_training_s(self.limits, reserve_s, self._folder.save_again_s())
        self.report(f"plan: {max(left_s, 0):.1f} s to train, {reserve_s:.1f} s reserved for meta-test")
        budget = TimeBudget.of(left_s, self.limits.train.clock)
        data = self._prepare(pool, rows, tasks, budget, storage)
        listener = TrainingListener(self.report, self._on_improved)
        record = train_learner(self._fitted, data, budget, listener=listener, memory=self.limits.memory)
        self.report(f"{self.recipe.learner}: {record.summary()}")
        self._folder.save(self._fitted)

    def _choose_rows(self, pool: ImagePool, costs: TrainedCosts, reserve_s: float, storage: Storage) -> Rows:
        """Rows of the pool that time and room allow to prepare, as large a share of every class."""
        left_s = left_for_training_s(self.limits, reserve_s, self._folder.save_again_s())
        prepare_s = math.inf if self.recipe.training.repeatable else self.shares.preparing * left_s
        most = count_affordable(costs, prepare_s, storage)
        if most < len(pool.images):
            self.report(
                f"{most} of {len(pool.images)} images fit: {1 / costs.image_s:.0f} images/s are prepared here"
            )
        return take_share_of_each_class(pool.labels, min(most / len(pool.images), 1.0), self._rng)

    def _prepare(
        self, pool: ImagePool, rows: Rows, tasks: Any, budget: TimeBudget, storage: Storage
    ) -> TrainingData:
        """Encoder inputs of these rows, and episodes to train and validate on: of the pool, or of the stream."""
        images = pool.images if len(rows) == len(pool.images) else pool.images[rows]
        inputs = self._fitted.learner.encoder.prepare(images, budget, storage)
        if inputs.nbytes > storage.memory_bytes:
            self.report(f"{inputs.nbytes / 1e9:.2g} GB of prepared images are in a file: memory is too small")
        spec, episodes, part = self.test.episodes, self.recipe.validation_episodes, select_labels(pool, rows)
        if self.recipe.data == "stream":  # it trains on classes of its own, so all of the pool's are left
            asked = sample_episodes(part, np.unique(part.labels), spec, episodes, self._rng)
            source = TaskSource(tasks(ENDLESS), self._fitted.prepare)
            return TrainingData(inputs, source, ValidationEpisodes(asked))
        classes, validation = hold_out_classes(
            part, spec, share=self.shares.held_out, episodes=episodes, rng=self._rng
        )
        return TrainingData(inputs, build_pool_source(self._fitted, inputs, part, classes, spec), validation)

    def _on_improved(self, answer: Answer) -> None:
        """Tell of the better learner and save it, unless one was saved just now."""
        figures = answer.figures()
        mean, half = figures["normalised_accuracy"], figures["ci95"]
        self.report(Progress("training", 0, mean, max(mean - half, -1.0), min(mean + half, 1.0)).line())
        self._fitted.validation = {"stage": "training", **figures}
        if self._folder.is_due(POLICY.save_training_every_s):
            self._folder.save(self._fitted)
