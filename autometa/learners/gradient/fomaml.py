"""First-order MAML."""

from __future__ import annotations

from typing import Literal

from autometa.learners.gradient.base import GradientLearner, InnerLoop


class FOMAMLOptions(InnerLoop):
    """Inner gradients are constants."""

    first_order: Literal[True] = True


class FOMAML(GradientLearner):
    """MAML with the query gradient taken at θ' as if inner gradients were constants (Finn et al. 2017, §5.2)."""

    options_type = FOMAMLOptions
