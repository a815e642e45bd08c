"""The trials of a search: what they may cost, what they found, and the tuned backbone that joins them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from autometa.backbones import Source, View, build_backbone
from autometa.bench import Bench
from autometa.budget import TimeBudget
from autometa.errors import BudgetExhausted, ConfigError
from autometa.evaluation import Answer, ValidationEpisodes, paired_gain
from autometa.forecast import RACE_S, Forecast
from autometa.heads import HEADS
from autometa.learners.encoder import EncoderSpec, TailEncoder
from autometa.learners.storage import Storage
from autometa.planning import FINISH_S, SLOWDOWN
from autometa.ranking import WORSE
from autometa.search import Candidate, Outcome, Pruned, Search, guarded
from autometa.tuning import tune_tail

STAGES = ("last", "stage4", "stage3")
"""Layers that are tried together beside the last one: glyphs and textures prefer earlier ones."""
QUICK_HEADS, QUICK_TRANSFORM = ("centroid", "ot_map"), "root_l2"
"""What views are ranked with."""
TRIAL_S, TRIAL_BYTES = 2.0, 350 * 2**20
"""What a trial with its metric may take."""
LATER_SHARE = 0.4
"""Share of the search time that untouched views leave to tuning and refining."""
FIRST_LOOK, HOPELESS = 30, 2.0
"""Episodes after which a candidate is dropped if it is behind the best one of the same pass by so many paired
standard errors."""
RESERVED, RESERVED_SHARE = 3, 0.3
"""Meta-test is reserved for so many of the best passes, as long as they take no more than this share of the time
that there was at the beginning."""
TUNED_STAGES, TUNED_PX = 2, 128
"""Stages that are tuned, and the resolution from which on a coarser one does for it."""
TUNE_SHARE, LEAST_TUNE_S = 0.6, 6.0
"""Share of the time left to search that tuning may take; not begun with less than that."""
TUNE_BYTES, TUNE_BYTES_SHARE = 500 * 2**20, 0.4
"""Memory that must be there for it; share of it that activations may take, more of them go to the disk."""


@dataclass
class Trials:
    """Candidates measured on a bench while the time allows it, and meta-test with the best of them besides.
    `announce` is told every outcome; `first` is the view that there is anyway."""

    bench: Bench
    first: View
    forecast: Forecast
    announce: Callable[[Outcome], None]
    report: Callable[[str], None]
    tune_steps: int
    _leaders: dict[Source, Outcome] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._most_reserved_s = RESERVED_SHARE * self.forecast.limits.run.left_s()
        self._first_look = ValidationEpisodes(self.bench.episodes.episodes[:FIRST_LOOK])

    def run(self, search: Search, search_s: float, max_trials: int) -> list[Outcome]:
        """Explore, tune, refine; all outcomes that have an answer."""
        later_s = LATER_SHARE * search_s
        search.explore(lambda: self.forecast.spare_s(self.reserved) > later_s and self.may_go_on())
        search.widen(self._tuned_views(), self.may_go_on)
        search.refine(self.may_go_on, max_trials)
        return [outcome for outcome in search.outcomes if outcome.answer is not None]

    def layered(self, view: View) -> list[View]:
        """The view, and the same pass with more layers, where the network has them."""
        has = self.forecast.shelf(view.backbone).widths
        return [view, replace(view, layers=STAGES)] if has.keys() >= set(STAGES) else [view]

    def quick_score(self, view: View, few: Bench) -> float:
        """Mean normalised accuracy on a few episodes of the better of two heads, on the last layer or several; -1
        where all of them fail. BudgetExhausted where time or room does not do."""

        def measure(candidate: Candidate) -> Answer:
            features = self.features(candidate.view, few)
            return few.answer(candidate.view, features, candidate.head, candidate.params)

        found = [
            guarded(
                measure,
                Candidate(each, head, {"transform": QUICK_TRANSFORM, **HEADS[head].first_params()}),
            )
            for each in self.layered(view)
            for head in QUICK_HEADS
        ]
        best = max(found, key=lambda outcome: outcome.score)
        if best.status == "timeout":
            raise BudgetExhausted(best.note)
        return best.score

    def attempt(self, candidate: Candidate) -> Outcome:
        """Measure a candidate; what goes wrong is an outcome too."""
        outcome = guarded(self._measure, candidate)
        leader = self._leaders.get(candidate.view.source)
        if outcome.score > (leader.score if leader else 0.0):
            self._leaders[candidate.view.source] = outcome
        self.announce(outcome)
        return outcome

    def may_go_on(self) -> bool:
        """Whether there is time and memory for another trial, and then for meta-test with the best so far."""
        return self.forecast.fits(self.reserved, spare_s=TRIAL_S) and self.forecast.limits.memory.fits(
            TRIAL_BYTES
        )

    @property
    def reserved(self) -> list[View]:
        """The best view, and further ones for an ensemble, of other passes, that have their place in the plan."""
        ranked = sorted(self._leaders.values(), key=lambda outcome: -outcome.score)
        views: list[View] = []
        for outcome in ranked[:RESERVED]:
            further = [*views, outcome.candidate.view]
            if views and (
                outcome.score < ranked[0].score - WORSE
                or self.forecast.meta_test_s(further) > self._most_reserved_s
            ):
                break
            views = further
        return views or [self.first]

    def features(self, view: View, bench: Bench | None = None) -> torch.Tensor:
        """Features of all images of the bench, or of another one; BudgetExhausted where they do not fit in the
        time left, which does not include the seconds that finishing takes."""
        forecast, store, bench = self.forecast, self.forecast.store, bench or self.bench
        missing = store.missing(view, bench.keys)
        embed_s = SLOWDOWN * missing * forecast.image_s(view)
        if missing and not (
            forecast.fits([view], {view: missing}) and forecast.fits(self.reserved, spare_s=embed_s)
        ):
            raise BudgetExhausted(f"{missing} images with {view} do not fit in the time left")
        train = forecast.limits.train
        budget = TimeBudget(train.deadline - FINISH_S, train.clock)
        return store.embed(view, bench.images, bench.keys, budget)

    def _measure(self, candidate: Candidate) -> Answer:
        view = candidate.view
        features = self.features(view)
        if not self.forecast.fits([view]):
            raise BudgetExhausted(f"meta-test with {view} does not fit in the time left")
        if best := self._leaders.get(view.source):
            self._look(candidate, features, best)
        return self.bench.answer(view, features, candidate.head, candidate.params)

    def _look(self, candidate: Candidate, features: torch.Tensor, best: Outcome) -> None:
        """Pruned where a candidate is far behind the best one of the same pass on the first few episodes; one that
        is alone on its view may still be of use in an ensemble."""
        look = self._first_look
        answer = self.bench.answer(candidate.view, features, candidate.head, candidate.params, look)
        assert best.answer is not None
        gain, error = paired_gain(answer.accuracies, best.answer.accuracies[: len(answer.accuracies)])
        if gain + HOPELESS * error < 0:
            told = f"{100 * gain:+.1f} ± {196 * error:.1f} points from the best"
            raise Pruned(answer.mean, f"{told} on {len(look.episodes)} episodes")

    def _tuned_views(self) -> list[View]:
        """Views of the best backbone so far with its last stages tuned on the classes to fit on; none where
        there is no time or room for that, or it can not be cut."""
        best, shelf = replace(self.reserved[0], layers=("last",), flip=False), self.forecast.shelf
        px = shelf(best.backbone).input_px(min(best.px, TUNED_PX))
        images = self.bench.images[self.bench.size :]
        tune_s = TUNE_SHARE * self._spare_for_tuned(best)
        wanted = self.tune_steps > 0 and len(images) > 0
        limits = self.forecast.limits
        if not wanted or tune_s < LEAST_TUNE_S or not limits.memory.fits(TUNE_BYTES):
            return []
        storage = Storage(TUNE_BYTES_SHARE * limits.memory.left_bytes())
        budget = TimeBudget(limits.train.clock() + tune_s, limits.train.clock)
        spec = EncoderSpec(network=best.backbone, px=px, trainable=TUNED_STAGES)
        try:
            encoder = TailEncoder(build_backbone(best.backbone, "cpu"), spec).to(shelf.device)
            tuned = tune_tail(encoder, images, self.bench.fit_labels, budget, storage, self.tune_steps)
        except (BudgetExhausted, ConfigError, RuntimeError, ValueError) as error:
            self.report(f"{best.backbone}@{px} is not tuned: {error}")
            return []
        name = shelf.adopt(best.backbone, tuned.state, best.px)
        self.report(
            f"tuned {best.backbone}@{px}: {tuned.steps} steps in {tuned.train_s:.1f} s, after "
            f"{tuned.prepare_s:.1f} s for {len(images)} images"
        )
        sizes = dict.fromkeys((best.px, px))
        return [view for size in sizes for view in self.layered(View(name, size))]

    def _spare_for_tuned(self, best: View) -> float:
        """Seconds left for tuning and for trials after it, once the tuned network has embedded the bench."""
        embed_s = SLOWDOWN * len(self.bench.keys) * self.forecast.image_s(best) + RACE_S
        return self.forecast.spare_s(self.reserved) - embed_s
