"""P>M>F: pretrained, meta-trained, fine-tuned."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator

from autometa.backbones import copy_sharing_tensors
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.time_policy import POLICY
from autometa.evaluation.accuracy import paired_gain
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.augmentation import Augmentation
from autometa.learners.base import EpisodicLearner
from autometa.learners.encoder import Encoder
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.tasks import Task, answer_each_task
from autometa.learners.metric.prototypical import Metric, Prototypical, PrototypicalOptions
from autometa.learners.transfer.support_training import (
    Params,
    Scope,
    embed_in_parts,
    select_params,
    train_on_support,
)

VIEWS = Augmentation(shift=0.125, brightness=0.3)
"""What makes pseudo-queries of support images; a mirrored letter may be another one."""
DROPPED = 0.1
"""Share of the channels that pseudo-queries of features lack."""
SEED = 0
PROBED = 4
FEWEST = 8
"""Validation episodes with fewer than which no rate is chosen."""


class PMFOptions(PrototypicalOptions):
    """Options of `PMF`, explained there."""

    metric: Metric = "cosine"
    scope: Scope = "all"
    steps: int = Field(default=50, ge=1)
    rates: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2)

    @field_validator("rates")
    @classmethod
    def _check_rates(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if not rates or min(rates) < 0:
            raise ValueError("give at least one rate, none below 0; 0 is always tried as well")
        return rates


class PMF(Prototypical):
    """A prototypical network that is fine-tuned on every task (P>M>F, Hu et al. 2022): `steps` of Adam on all
    trained parameters or those of the last blocks (`scope`); the loss is that of pseudo-queries, augmented
    support images, by prototypes of the support.

    The rate is one of `rates`, chosen after meta-training on validation episodes and kept with the weights; 0,
    no fine-tuning, stays unless another one gains more than the standard error of the paired difference.
    """

    options_type = PMFOptions

    def __init__(self, encoder: Encoder, options: PMFOptions) -> None:
        super().__init__(encoder, options)
        self.options = options
        self.register_buffer("rate", torch.zeros(()))

    rate: torch.Tensor

    def forward(self, episodes: InputEpisodes) -> torch.Tensor:
        """Scores [b, q, n] of the queries; without fine-tuning in training."""
        if self.training or not self.rate:
            return super().forward(episodes)
        return answer_each_task(self, episodes, PMF.task_logits)

    def task_logits(self, task: Task) -> torch.Tensor:
        """Logits [q, ways] of the queries of one task after fine-tuning."""
        rate, rng = float(self.rate), np.random.default_rng(SEED)

        def loss(params: Params) -> torch.Tensor:
            both = torch.cat([task.support, make_pseudo_queries(task.support, rng)])
            support, query = embed_in_parts(self.encoder, params, both).chunk(2)
            return F.cross_entropy(self.compare(task.embedded_batch(support, query))[0], task.support_labels)

        start = select_params(self.encoder, self.options.scope)
        params = train_on_support(loss, start, lambda _: rate, self.options.steps)
        support, query = (embed_in_parts(self.encoder, params, part) for part in (task.support, task.query))
        return self.compare(task.embedded_batch(support, query))[0]

    def validate(self, inputs: torch.Tensor, validation: ValidationEpisodes) -> Answer:
        """The answer on validation episodes, with fine-tuning where a rate was chosen."""
        if not self.rate:
            return super().validate(inputs, validation)
        return EpisodicLearner.validate(self, inputs, validation)

    def choose_options(
        self, inputs: torch.Tensor, validation: ValidationEpisodes, budget: TimeBudget, task_s: float = 0.0
    ) -> str:
        """Choose the rate, on as many episodes as there is time for; on too few of them it is 0."""
        self.rate.zero_()
        rates = [rate for rate in self.options.rates if rate > 0]
        if not rates:
            return "rate 0: there is no other"
        count = self._count_affordable(inputs, validation, budget, len(rates), task_s)
        if count < FEWEST:
            return f"rate 0: time for {count} validation episodes, {FEWEST} are needed to choose"
        part = ValidationEpisodes(validation.episodes[:count])
        plain = self.validate(inputs, part).accuracies
        chosen, best, why = 0.0, 0.0, "no other rate gained more than chance"
        for rate in rates:
            self.rate.fill_(rate)
            gain, error = paired_gain(self.validate(inputs, part).accuracies, plain)
            if gain > max(error, best):
                chosen, best, why = rate, gain, f"gains {100 * gain:.1f} ± {100 * error:.1f}"
        self.rate.fill_(chosen)
        return f"rate {chosen:g}: {why} ({count} validation episodes)"

    def _count_affordable(
        self,
        inputs: torch.Tensor,
        validation: ValidationEpisodes,
        budget: TimeBudget,
        rates: int,
        task_s: float,
    ) -> int:
        """How many validation episodes can be answered with so many rates in time. Fine-tuning is tried on one, then
        on `PROBED`, and no longer than what is known of its cost leaves time for a choice."""

        def count(each_s: float, spent_s: float = 0.0) -> int:
            left = (budget.left_s() / POLICY.slowdown - spent_s) / (rates * (each_s + 1e-9))
            return int(max(min(left, len(validation.episodes)), 0))

        if budget.left_s() <= 0:
            return 0
        each_s = task_s or self._guess_task_s(inputs, validation, budget)
        for number in (1, PROBED):
            affordable = count(each_s)
            if affordable < FEWEST or (number > 1 and count(each_s, number * each_s) < FEWEST):
                return affordable
            few, elapsed = ValidationEpisodes(validation.episodes[:number]), stopwatch(budget.clock)
            self.slowest().validate(inputs, few)
            each_s = elapsed() / len(few.episodes)
        return count(each_s)

    def _guess_task_s(
        self, inputs: torch.Tensor, validation: ValidationEpisodes, budget: TimeBudget
    ) -> float:
        """The least seconds that fine-tuning at a task can take: those of embedding its support at every step."""
        first, elapsed = validation.episodes[:1], stopwatch(budget.clock)
        self.validate(inputs, ValidationEpisodes(first))
        support, query = (len(rows) for rows in (first[0].support_rows, first[0].query_rows))
        return self.options.steps * elapsed() * support / (support + query)

    def slowest(self) -> PMF:
        """A copy, sharing weights, that fine-tunes."""
        copy = copy_sharing_tensors(self)
        copy.rate = torch.full_like(self.rate, max(self.options.rates))
        return copy


def make_pseudo_queries(support: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Support inputs [s, ...] as they might look in a query: images uint8 [s, c, h, w] moved and dimmed or lit;
    features of a frozen trunk without some of their channels.

    Whatever is drawn is done to all of them, so that their order does not matter. With one mask for all, the
    classes are compared in a random subspace, in which what tells them apart has to hold as well.
    """
    if support.dtype == torch.uint8:
        together = support.cpu().flatten(0, 1)[None]  # the channels of one image: all are drawn alike
        return VIEWS(together, np.zeros(1, np.int64), rng).view_as(support).to(support.device)
    axis = 1 if support.ndim == 4 else support.ndim - 1  # maps [s, c, h, w], tokens [s, t, c]
    shape = [1] * support.ndim
    shape[axis] = support.shape[axis]
    kept = torch.from_numpy(rng.random(shape) >= DROPPED).to(support)
    return support * kept / (1 - DROPPED)
