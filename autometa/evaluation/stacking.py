"""Ensemblers: ways to make one answer of those of several members, fitted on validation episodes.

Members are given as their log-probabilities [..., n]. MetaDelta (Chen et al. 2021) stacks classifiers on the
probabilities of all members side by side. Those know one number of classes and depend on their order. Here each rule
has the same numbers for all classes, so it holds for any number of classes in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from autometa.evaluation.mixing import LEAST_LOG, fit_mixture_weights, mix_batches
from autometa.evaluation.validation_episodes import ValidationEpisodes

Rule = Literal["mean", "linear", "naive_bayes"]
Members = Sequence[Sequence[torch.Tensor]]
"""Log-probabilities [b, q, n] of each member, per batch of the validation episodes."""

LEAST_VARIANCE = 1e-3
"""Of probabilities under naive Bayes: surer members would outvote all others."""
PENALTY = 1.0
"""Of the squared weights of the linear rule, as in the published code."""


class Stacking(BaseModel):
    """One answer of several members, with `numbers` for each of them: under `mean` its weight in the mean of
    probabilities; under `linear` its weight in Σ weight·p(n), which is a logit; under `naive_bayes` mean and variance
    of the probability that it gives the label, then of that which it gives another class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Rule
    numbers: tuple[tuple[float, ...], ...] = Field(min_length=1)

    def __call__(self, log_p: Sequence[torch.Tensor]) -> torch.Tensor:
        """Log-probabilities [..., n] of the members → of them together; classes that none has stay at -inf."""
        if self.rule == "mean":
            return mix_batches([[one] for one in log_p], [weight for (weight,) in self.numbers])[0]
        absent = torch.stack(list(log_p)).isneginf().all(0)
        given = zip(log_p, self.numbers, strict=True)
        if self.rule == "linear":
            logits = torch.stack([weight * one.exp() for one, (weight,) in given]).sum(0)
        else:
            logits = torch.stack([_log_odds(one.exp(), own) for one, own in given]).sum(0)
        return logits.clamp(min=LEAST_LOG).masked_fill(absent, -torch.inf).log_softmax(-1)

    def of_batches(self, members: Members) -> list[torch.Tensor]:
        """The same per batch."""
        return [self(batch) for batch in zip(*members, strict=True)]


def _log_odds(p: torch.Tensor, numbers: Sequence[float]) -> torch.Tensor:
    """How much more likely probabilities are where their class is the label, as logarithm."""
    of_label, variance, of_other, other_variance = numbers
    near: torch.Tensor = (p - of_label).square() / variance + np.log(variance)
    far: torch.Tensor = (p - of_other).square() / other_variance + np.log(other_variance)
    return 0.5 * (far - near)


def fit_mean(members: Members, episodes: ValidationEpisodes) -> Stacking:
    """The weighted mean of probabilities under which the labels are most likely."""
    return Stacking(
        rule="mean", numbers=tuple((weight,) for weight in fit_mixture_weights(members, episodes))
    )


def fit_linear(members: Members, episodes: ValidationEpisodes) -> Stacking:
    """Logistic regression on the probabilities of all members, with one weight for each member: that of the
    published code with weights that do not depend on which class it is."""
    p, is_label = _probabilities(members, episodes)
    present = ~np.isneginf(p).any(0)
    p = np.where(present, np.exp(p), 0.0)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = np.where(present, np.tensordot(weights, p, 1), -np.inf)
        logits = logits - logits.max(1, keepdims=True)
        answered = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        gradient = (p * (answered - is_label)).sum((1, 2)) + PENALTY * weights
        likely = np.log(answered[is_label].clip(min=1e-300))
        return float(-likely.sum() + 0.5 * PENALTY * weights @ weights), gradient

    from scipy import optimize  # noqa: PLC0415 - takes 15 MB and is needed at the end of a run only

    best = optimize.minimize(loss, np.ones(len(p)), jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(p))
    return Stacking(rule="linear", numbers=tuple((float(weight),) for weight in best.x))


def fit_naive_bayes(members: Members, episodes: ValidationEpisodes) -> Stacking:
    """Gaussian naive Bayes on the probabilities of all members: that of the published code with the same means and
    variances for all classes."""
    log_p, is_label = _probabilities(members, episodes)
    numbers = []
    for own in log_p:
        right, wrong = np.exp(own[is_label]), np.exp(own[~is_label & ~np.isneginf(own)])
        parts = (right.mean(), right.var(), wrong.mean(), wrong.var()) if len(wrong) else (1.0, 0.0, 0.0, 0.0)
        numbers.append(tuple(float(max(x, LEAST_VARIANCE) if i % 2 else x) for i, x in enumerate(parts)))
    return Stacking(rule="naive_bayes", numbers=tuple(numbers))


STACKINGS: dict[Rule, Callable[[Members, ValidationEpisodes], Stacking]] = {
    "mean": fit_mean,
    "linear": fit_linear,
    "naive_bayes": fit_naive_bayes,
}
"""How each rule is fitted."""


def _probabilities(
    members: Members, episodes: ValidationEpisodes
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-probabilities [members, queries, n] without padding, and which class is the label, bool [queries, n]."""
    rows = torch.stack([episodes.queries.rows(member).double() for member in members])
    classes = torch.arange(rows.shape[-1])
    return rows.numpy(), (episodes.queries.labels[:, None] == classes).numpy()
