"""The learner that a run would serve with now, on disk as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autometa.backbones import View
from autometa.evaluation.member import Member, plain_member
from autometa.evaluation.mixing import IDENTITY_TEMPERATURE, ShotTemperature
from autometa.heads import Metric
from autometa.model.artifact import MetricKey
from autometa.model.fitted_learner import FittedLearner
from autometa.model.learner_folder import LearnerFolder
from autometa.model.trained_ensemble import TrainedMember
from autometa.planning.forecast import Forecast
from autometa.planning.stage_log import StageLog
from autometa.search.candidates import FamilyCandidate
from autometa.search.ensembles import WeightedCandidate
from autometa.search.resume import BOOTSTRAP
from autometa.search.trials import Trials


@dataclass
class Incumbent:
    """Saves learners in the folder `checkpoint` (None: only `latest` is kept); `report` gets a line for each."""

    checkpoint: Path | None
    forecast: Forecast
    stages: StageLog
    report: Callable[[str], None]
    latest: FittedLearner | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._folder = LearnerFolder(self.checkpoint, self.report)

    @property
    def is_due(self) -> bool:
        """Whether the last learner was saved some time ago, and there is a folder for the next."""
        return self._folder.is_due(self.forecast.policy.save_every_s)

    @property
    def has_ensemble(self) -> bool:
        """Whether the latest learner is one: no head alone replaces it, which was the best of many by chance."""
        return self.latest is not None and len(self.latest.members) + len(self.latest.trained) > 1

    def meta_test_s(self, learner: FittedLearner) -> float:
        """Predicted seconds of meta-test with a learner of an earlier run, as far as its networks were measured in
        this one; a variant of a backbone costs as much as the backbone."""
        views = [replace(member.view, variant="") for member in learner.members]
        measured = [view for view in views if view.backbone in self.forecast.probed]
        return self.forecast.meta_test_s(measured, [member.costs for member in learner.trained])

    def save_plain(self, view: View) -> FittedLearner:
        """Keep nearest centroid on a view."""
        return self._save_members((plain_member(view),), {}, {"stage": BOOTSTRAP})

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
        heads: list[Member] = []
        trained: list[TrainedMember] = []
        for candidate, member_temperature, weight in members:
            if isinstance(candidate, FamilyCandidate):
                trained.append(trials.families.member(candidate, member_temperature, weight))
                continue
            view, name = candidate.view, candidate.params["transform"]
            metrics[view, name] = trials.validation_set.metric(
                view, trials.features(view), name, every_class=every_class
            )
            heads.append(
                Member.of(
                    view,
                    candidate.head,
                    candidate.params,
                    temperature=member_temperature,
                    weight=weight,
                )
            )
        self._save_members(tuple(heads), metrics, record, tuple(trained), temperature)

    def keep(self, learner: FittedLearner) -> FittedLearner:
        """Make it the latest learner and save it."""
        self.latest = learner
        self._folder.save(learner)
        self.stages.write()
        return learner

    def _save_members(
        self,
        members: tuple[Member, ...],
        metrics: dict[MetricKey, Metric],
        record: dict[str, Any],
        trained: tuple[TrainedMember, ...] = (),
        temperature: ShotTemperature = IDENTITY_TEMPERATURE,
    ) -> FittedLearner:
        if self.forecast.probed:
            views, costs = [member.view for member in members], [member.costs for member in trained]
            self.stages.predict("meta_test", self.forecast.meta_test_s(views, costs))
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
