"""Model-agnostic meta-learning."""

from __future__ import annotations

from autometa.learners.gradient.base import GradientLearner


class MAML(GradientLearner):
    """θ' = θ - α∇L_S(θ), repeated; θ is trained so that θ' is good on the query, with gradients through the
    inner steps (Finn et al. 2017)."""
