"""A frozen backbone, one metric learned in closed form, the nearest class mean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from autometa.backbones import View
from autometa.core.errors import BudgetExhausted
from autometa.core.time_policy import POLICY
from autometa.data.images import ImagePool, Rows
from autometa.evaluation.candidates import measure_safely
from autometa.evaluation.member import plain_member
from autometa.evaluation.mixing import fit_temperature
from autometa.evaluation.validation_episodes import Answer
from autometa.evaluation.validation_set import ValidationSet
from autometa.heads import METRICS, FeatureStatistics, Metric, Params, find_metric
from autometa.model.artifact import MetricKey
from autometa.model.fitted_learner import FittedLearner
from autometa.systems.frozen import FrozenSystem

EPISODES = 120
"""Validation episodes that choose the metric, and as many for the final figure."""


@dataclass
class WhitenedSystem(FrozenSystem):
    """One meta-training: all images embedded once, every metric of `METRICS` measured on classes held out, under
    the nearest class mean by cosine, and the best one fitted again on all classes."""

    def _fit(self, pool: ImagePool) -> FittedLearner:
        view = self._probe(pool)
        rows = self._affordable(pool, view)
        features = self._embed(pool, rows, view, self._forecast.spare_s([view]))
        validation_set = self._hold_out(pool, rows, EPISODES)
        params, answer = self._choose(view, features[validation_set.keys], validation_set)
        name = str(params["transform"])
        metrics: dict[MetricKey, Metric] = {}
        if find_metric(name).learned:
            metrics[view, name] = FeatureStatistics(features, torch.from_numpy(pool.labels[rows])).fit(
                find_metric(name)
            )
        temperature = fit_temperature(answer, validation_set.episodes)
        fresh = validation_set.answer(
            view, features[validation_set.keys], "centroid", params, validation_set.fresh
        )
        self.report(
            f"chosen: {name}, {fresh.percent()} on fresh validation episodes before it was fitted on all classes"
        )
        member = plain_member(view).model_copy(update={"params": params, "temperature": temperature})
        return self._save([member], metrics, {"stage": "final", "metric": name, **fresh.figures()})

    def _affordable(self, pool: ImagePool, view: View) -> Rows:
        """Rows of the images that there is time to embed, the same share of every class."""
        plan = self._plan([view])
        self.report(f"plan: {plan.why}")
        return self._take(pool, self._count_affordable([view], plan))

    def _choose(
        self, view: View, features: torch.Tensor, validation_set: ValidationSet
    ) -> tuple[Params, Answer]:
        """The best of the metrics, as parameters of the nearest centroid, out of as many as there is time to measure;
        and what it answers. BudgetExhausted where there is none."""
        found: list[tuple[Params, Answer]] = []
        for name in METRICS:
            if not self._forecast.fits([view], spare_s=POLICY.trial_s):
                self.report(f"no time for the metrics from {name} on")
                break
            params = {**plain_member(view).params, "transform": name}
            outcome = measure_safely(partial(validation_set.answer, view, features, "centroid", params))
            self.report(f"metric {name}: {outcome.answer.percent() if outcome.answer else outcome.note}")
            if outcome.answer:
                found.append((params, outcome.answer))
        if not found:
            raise BudgetExhausted("no metric could be measured")
        return max(found, key=lambda one: one[1].mean)
