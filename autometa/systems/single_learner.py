"""One meta-training of one learner within a budget: pool → measure → prepare → hold out classes → train → save."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

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
from autometa.learners.variants import Variants
from autometa.model.learner_folder import LearnerFolder
from autometa.planning.plan import Costs, left_for_training_s, meta_test_s

ENDLESS = 1_000_000
"""Tasks asked of a stream."""
MOST_TEST_SHARE = 0.4
"""Of the time left, what meta-test may take with images of a larger size."""


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
        self._fitted = self._build(self.recipe)
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
        costs = self._measure(self._fitted, probe, len(pool.images))
        if not self.recipe.training.repeatable:  # what there is time for differs from run to run
            costs = self._enlarge(costs, probe, len(pool.images))
        reserve_s = self._reserve_s(costs)
        storage = Storage(self.shares.storage * self.limits.memory.left_bytes())
        most = self._count_affordable(costs, reserve_s, storage)
        if most < len(pool.images):
            self.report(
                f"{most} of {len(pool.images)} images fit: {1 / costs.image_s:.0f} images/s are prepared here"
            )
        rows = take_share_of_each_class(pool.labels, min(most / len(pool.images), 1.0), self._rng)
        left_s = self._left_s(reserve_s)
        self.report(f"plan: {max(left_s, 0):.1f} s to train, {reserve_s:.1f} s reserved for meta-test")
        room = TimeBudget.of(left_s, self.limits.train.clock), storage
        data = self._prepare(pool, rows, tasks, most - len(rows), room)
        listener = TrainingListener(self.report, self._on_improved)
        record = train_learner(self._fitted, data, room[0], listener=listener, memory=self.limits.memory)
        self.report(f"{self.recipe.learner}: {record.summary()}")
        self._folder.save(self._fitted)

    def _build(self, recipe: Recipe) -> TrainedLearner:
        return build_untrained(recipe, self.test.episodes, Machine.detect().device)

    def _measure(self, fitted: TrainedLearner, probe: NDArray[np.uint8], n_images: int) -> TrainedCosts:
        """What a learner costs on its fastest engine; `probe` uint8 [n, 3, h, w] of `n_images` images."""
        if not self.recipe.training.repeatable:  # a race is decided by time
            to_come = int(self.test.embedded_images) + n_images
            choose_engine(fitted, probe, to_come, self.limits.train, self.report)
        return measure_costs(fitted, PreparedImages(probe), self.test.episodes)

    def _reserve_s(self, costs: TrainedCosts) -> float:
        """Predicted seconds of meta-test."""
        return meta_test_s([], self.test, Costs(self.start_s, {}, task_s=0.0, learners=(costs,)))

    def _left_s(self, reserve_s: float) -> float:
        """Seconds to train in with meta-test reserved."""
        return left_for_training_s(self.limits, reserve_s, self._folder.save_again_s())

    def _enlarge(self, costs: TrainedCosts, probe: NDArray[np.uint8], n_images: int) -> TrainedCosts:
        """Take the first of the larger sizes that there is time for, as predicted and then as measured; what the
        learner costs then."""
        encoder = self.recipe.encoder
        for px in (px for px in self.recipe.larger_px if px > encoder.px):
            image_s = costs.image_s * (px / encoder.px) ** 2
            if not self._has_time(replace(costs, image_s=image_s), n_images):
                self.report(f"no time for images of {px} px")
                continue
            larger = encoder.model_copy(update={"px": px})
            fitted = self._build(self.recipe.model_copy(update={"encoder": larger}))
            found = self._measure(fitted, probe, n_images)
            if self._has_time(found, n_images):
                self.report(f"images are taken at {px} px")
                self._fitted = fitted
                self._folder.save(fitted)
                return found
            self.report(f"no time for images of {px} px: {1 / found.image_s:.0f} images/s are prepared here")
        return costs

    def _has_time(self, costs: TrainedCosts, n_images: int) -> bool:
        """Whether a learner with these costs has time to prepare all images, and meta-test takes a small share."""
        reserve_s = self._reserve_s(costs)
        prepare_s = self.shares.preparing * self._left_s(reserve_s)
        enough = POLICY.slowdown * costs.image_s * n_images <= prepare_s
        return enough and reserve_s <= MOST_TEST_SHARE * self.limits.run.left_s()

    def _count_affordable(self, costs: TrainedCosts, reserve_s: float, storage: Storage) -> int:
        """How many images time and room allow to prepare."""
        repeatable = self.recipe.training.repeatable
        prepare_s = math.inf if repeatable else self.shares.preparing * self._left_s(reserve_s)
        return count_affordable(costs, prepare_s, storage)

    def _prepare(
        self, pool: ImagePool, rows: Rows, tasks: Any, spare: int, room: tuple[TimeBudget, Storage]
    ) -> TrainingData:
        """Encoder inputs of these rows, and of augmented copies for which there is `spare` room; episodes to train
        and validate on: of the pool, or of the stream."""
        images = pool.images if len(rows) == len(pool.images) else pool.images[rows]
        spec, episodes, part = self.test.episodes, self.recipe.validation_episodes, select_labels(pool, rows)
        if self.recipe.data == "stream":  # it trains on classes of its own, so all of the pool's are left
            inputs = self._check_size(self._fitted.learner.encoder.prepare(images, *room), room[1])
            asked = sample_episodes(part, np.unique(part.labels), spec, episodes, self._rng)
            stream = TaskSource(tasks(ENDLESS), self._fitted.prepare)
            return TrainingData(inputs, stream, ValidationEpisodes(asked))
        classes, validation = hold_out_classes(
            part, spec, share=self.shares.held_out, episodes=episodes, rng=self._rng
        )
        variants = self._plan_variants(np.flatnonzero(np.isin(part.labels, classes)), len(rows), spare)
        encoder, augmentation = self._fitted.learner.encoder, self.recipe.augmentation
        inputs = (
            variants.prepare(encoder, images, augmentation, self._rng, room)
            if variants
            else encoder.prepare(images, *room)
        )
        source = build_pool_source(
            self._fitted, self._check_size(inputs, room[1]), part, classes, spec, variants
        )
        return TrainingData(inputs, source, validation)

    def _plan_variants(self, to_train: Rows, n_images: int, spare: int) -> Variants | None:
        """As many copies of each image to train on as the recipe wants and as have room; None without any."""
        if not self.recipe.copies:
            return None
        copies = min(self.recipe.copies, spare // max(len(to_train), 1))
        self.report(f"{copies} augmented copies of each of {len(to_train)} images to train on")
        return Variants(to_train, copies, n_images) if copies else None

    def _check_size(self, inputs: torch.Tensor, storage: Storage) -> torch.Tensor:
        """The same, after a line where they are too large for memory."""
        if inputs.nbytes > storage.memory_bytes:
            self.report(f"{inputs.nbytes / 1e9:.2g} GB of prepared images are in a file: memory is too small")
        return inputs

    def _on_improved(self, answer: Answer) -> None:
        """Tell of the better learner and save it, unless one was saved just now."""
        figures = answer.figures()
        mean, half = figures["normalised_accuracy"], figures["ci95"]
        self.report(Progress("training", 0, mean, max(mean - half, -1.0), min(mean + half, 1.0)).line())
        self._fitted.validation = {"stage": "training", **figures}
        if self._folder.is_due(POLICY.save_training_every_s):
            self._folder.save(self._fitted)
