"""Trained learners as members of a fitted learner: which of them there is time for, and what they answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.core.budget import stopwatch
from autometa.core.time_policy import POLICY
from autometa.learners.trained import Images, TrainedPredictor
from autometa.model.trained_ensemble import TrainedMember

Fitted = tuple[TrainedMember, TrainedPredictor]
"""A member and what it made of a support set."""


class TrainedMembers:
    """The trained members, the one with the largest weight first. One that was once too slow is not asked again: it
    would have to prepare the images that it has missed."""

    def __init__(self, members: Sequence[TrainedMember]) -> None:
        self.members = tuple(sorted(members, key=lambda member: -member.weight))
        self._spent_s = dict.fromkeys((member.name for member in members), 0.0)
        self._tasks = 0

    def drop_late(self, spare_s: float, *, seen: int, images: float, tasks: float) -> None:
        """Keep as many, in order, as can answer so many `tasks` with so many `images` more in these seconds. The
        images `seen` before say by how much a member is slower than predicted."""
        kept, cost_s = [], 0.0
        for member in self.members:
            predicted_s = member.costs.answering_s(seen, self._tasks)
            slower = max(self._spent_s[member.name] / predicted_s, 1.0) if predicted_s else 1.0
            cost_s += POLICY.slowdown * slower * member.costs.answering_s(images, tasks)
            if cost_s > spare_s:
                break
            kept.append(member)
        self.members = tuple(kept)

    def fit(self, images: Images, labels: NDArray[np.int64], ways: int) -> list[Fitted]:
        """All members with a support set: images uint8 [s, 3, h, w], labels int64 [s] in 0..ways-1."""
        self._tasks += 1
        fitted = []
        for member in self.members:
            elapsed = stopwatch()
            fitted.append((member, member.learner.fit(images, labels, ways)))
            self._spent_s[member.name] += elapsed()
        return fitted

    def log_probabilities(self, fitted: Sequence[Fitted], images: Images) -> list[torch.Tensor]:
        """Calibrated log-probabilities float64 [q, ways] of each member for query images uint8 [q, 3, h, w]."""
        log_p = []
        for member, predictor in fitted:
            elapsed = stopwatch()
            log_p.append(member.log_probabilities(predictor, images))
            self._spent_s[member.name] += elapsed()
        return log_p
