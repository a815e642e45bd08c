"""Whether the probabilities of a submission match its accuracy: the expected calibration error.

Source: Guo et al., "On calibration of modern neural networks", ICML 2017. The largest probability of a query
is its confidence. Queries are sorted into bins of equal width by confidence; the error is the mean, over all
queries, of the distance between the accuracy of a bin and its mean confidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoring.metrics import Labels

Values = NDArray[np.float64]

BINS = 15
# Probabilities are rounded, at worst to bfloat16, which changes their sum by up to 2^-9.
SUM_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Reliability:
    """Calibration over the queries of some tasks.

    Per bin of confidence ((i/15, (i+1)/15], i from 0): `counts`, the number of queries, the sum of their
    `confidences` and the number of `hits`, each float64 [15]. Not in the bins: `unanswered` queries, whose task has
    no usable prediction, and `no_probabilities`, queries with labels or with scores that are not probabilities.
    """

    counts: Values
    confidences: Values
    hits: Values
    unanswered: int = 0
    no_probabilities: int = 0

    @property
    def queries(self) -> int:
        """Number of queries in the bins."""
        return int(self.counts.sum())

    @property
    def expected_error(self) -> float | None:
        """Expected calibration error in 0 … 1; None if no query has probabilities."""
        return float(np.abs(self.hits - self.confidences).sum() / self.queries) if self.queries else None

    @property
    def accuracy(self) -> float | None:
        """Share of the queries in the bins that are answered correctly; None if there are none."""
        return float(self.hits.sum() / self.queries) if self.queries else None

    @property
    def confidence(self) -> float | None:
        """Mean confidence of the queries in the bins; None if there are none."""
        return float(self.confidences.sum() / self.queries) if self.queries else None


def reliability(scores: Values, predicted: Labels, truth: Labels) -> Reliability:
    """Sort the queries of a task into bins.

    `scores`: [n_query, ways] as the submission wrote them, `predicted` and `truth`: [n_query]. A row counts
    if it holds probabilities: none is negative, and their sum is one up to `SUM_TOLERANCE`.
    """
    rows = np.flatnonzero(((scores >= 0) & (scores <= 1 + SUM_TOLERANCE)).all(axis=1))
    rows = rows[np.abs(scores[rows].sum(axis=1) - 1) <= SUM_TOLERANCE]
    confidence = np.minimum(scores[rows].max(axis=1), 1)
    bins = np.ceil(confidence * BINS).astype(np.int64) - 1
    right = bins[predicted[rows] == truth[rows]]
    return Reliability(
        counts=np.bincount(bins, minlength=BINS).astype(np.float64),
        confidences=np.bincount(bins, weights=confidence, minlength=BINS).astype(np.float64),
        hits=np.bincount(right, minlength=BINS).astype(np.float64),
        no_probabilities=len(scores) - len(rows),
    )


def left_out(*, unanswered: int = 0, no_probabilities: int = 0) -> Reliability:
    """The calibration of queries without a usable prediction."""
    nothing = np.zeros(BINS)
    return Reliability(nothing, nothing, nothing, unanswered, no_probabilities)


def merge(parts: Sequence[Reliability]) -> Reliability:
    """Merge one or more calibrations. Queries count equally, so that large tasks weigh more than small ones."""
    return Reliability(
        counts=np.sum([part.counts for part in parts], axis=0),
        confidences=np.sum([part.confidences for part in parts], axis=0),
        hits=np.sum([part.hits for part in parts], axis=0),
        unanswered=sum(part.unanswered for part in parts),
        no_probabilities=sum(part.no_probabilities for part in parts),
    )
