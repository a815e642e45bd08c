"""The learner that a run would serve with now, on disk as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autometa.backbones import View, untuned
from autometa.core.budget import process_age_s, stopwatch
from autometa.evaluation.member import Member, plain_member
from autometa.evaluation.mixing import IDENTITY_TEMPERATURE, ShotTemperature
from autometa.heads import Metric
from autometa.model.fitted_learner import FittedLearner, MetricKey
from autometa.model.trained_ensemble import TrainedMember
from autometa.planning.forecast import Forecast
from autometa.planning.stage_log import StageLog
from autometa.search.candidates import Candidate
from autometa.search.ensembles import WeightedCandidate
from autometa.search.family_trials import is_family
from autometa.search.resume import BOOTSTRAP
from autometa.search.trials import Trials

EVERY_S = 3.0
"""Between two learners saved during a search."""


@dataclass
class Incumbent:
    """Saves learners in the folder `checkpoint` (None: only `latest` is kept); `report` gets a line for each."""

    checkpoint: Path | None
    forecast: Forecast
    stages: StageLog
    report: Callable[[str], None]
    latest: FittedLearner | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._since_saved = stopwatch()

    @property
    def is_due(self) -> bool:
        """Whether the last learner was saved some time ago, and there is a folder for the next."""
        return self.checkpoint is not None and self._since_saved() > EVERY_S

    @property
    def has_ensemble(self) -> bool:
        """Whether the latest learner is one: no head alone replaces it, which was the best of many by chance."""
        return self.latest is not None and len(self.latest.members) + len(self.latest.trained) > 1

    def fits(self, learner: FittedLearner) -> bool:
        """Whether meta-test with a learner of an earlier run fits in the time left, as far as its networks were
        measured in this one."""
        forecast = self.forecast
        views = [replace(m.view, backbone=untuned(m.backbone)) for m in learner.members]
        costs = [member.costs for member in learner.trained]
        seconds = forecast.meta_test_s(view for view in views if view.backbone in forecast.probed)
        seconds += sum(
            forecast.test.embedded_images * c.image_s + forecast.test.tasks * c.task_s for c in costs
        )
        self.stages.predict("meta_test", seconds)
        return forecast.limits.run.fits(seconds)

    def save_plain(self, view: View) -> FittedLearner:
        """Keep nearest centroid on a view."""
        return self._save_members([view], (plain_member(view),), {}, {"stage": BOOTSTRAP})

    def save(
        self,
        members: list[WeightedCandidate],
        trials: Trials,
        record: dict[str, Any],
        temperature: ShotTemperature = IDENTITY_TEMPERATURE,
        *,
        every_class: bool = False,
    ) -> None:
        """Keep an ensemble with what is on `record` about it, its metrics fitted on the classes to fit on or on
        `every_class`."""
        metrics: dict[MetricKey, Metric] = {}
        heads = [member for member in members if not is_family(member[0])]
        for candidate, _, _ in heads:
            view, name = candidate.view, candidate.params["transform"]
            features = trials.features(view)
            metrics[view, name] = trials.validation_set.metric(view, features, name, every_class=every_class)
        trained = tuple(trials.families.member(*member) for member in members if member not in heads)
        heads_of = tuple(_member(*member) for member in heads)
        views = [candidate.view for candidate, _, _ in members]
        self._save_members(views, heads_of, metrics, record, trained, temperature)

    def keep(self, learner: FittedLearner) -> FittedLearner:
        """Make it the latest learner and save it."""
        self.latest = learner
        if self.checkpoint is not None:
            learner.save(self.checkpoint)
            self.stages.write()
            self._since_saved = stopwatch()
            stage = learner.validation["stage"]
            self.report(f"learner on disk ({stage}, {process_age_s():.1f} s after the start)")
        return learner

    def _save_members(
        self,
        views: list[View],
        members: tuple[Member, ...],
        metrics: dict[MetricKey, Metric],
        record: dict[str, Any],
        trained: tuple[TrainedMember, ...] = (),
        temperature: ShotTemperature = IDENTITY_TEMPERATURE,
    ) -> FittedLearner:
        """`views` of all members, for what meta-test is predicted to take."""
        if self.forecast.probed:
            self.stages.predict("meta_test", self.forecast.meta_test_s(views))
        learner = FittedLearner(
            members,
            self.forecast.shelf,
            metrics,
            balanced=self.forecast.test.episodes.balanced,
            validation=record,
            trained=trained,
            temperature=temperature,
        )
        return self.keep(learner)


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
