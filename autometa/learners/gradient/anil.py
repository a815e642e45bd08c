"""Almost no inner loop."""

from __future__ import annotations

from autometa.learners.gradient.base import GradientLearner


class ANIL(GradientLearner):
    """MAML whose inner steps change the head only (Raghu et al. 2020)."""

    moves = "head"
