"""Loading a saved learner of any kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autometa.core.files import read_format
from autometa.core.machine import Machine
from autometa.learners.trained import FORMAT as TRAINED
from autometa.learners.trained import TrainedLearner, TrainedPredictor
from autometa.model.fitted_learner import FittedLearner, FittedPredictor
from autometa.model.portfolio import Portfolio, PortfolioPredictor
from autometa.model.portfolio_description import FORMAT as PORTFOLIO
from autometa.model.trained_ensemble import FORMAT as ENSEMBLE
from autometa.model.trained_ensemble import EnsemblePredictor, TrainedEnsemble

AnyLearner = FittedLearner | Portfolio | TrainedLearner | TrainedEnsemble
AnyPredictor = FittedPredictor | PortfolioPredictor | TrainedPredictor | EnsemblePredictor


def load_learner(folder: Path, report: Callable[[str], None] | None = None) -> AnyLearner:
    """The learner that a run has saved in `folder`: one that the search chose, a portfolio, one that was trained,
    or an ensemble of those. All `fit` a support set, and what comes of it can `predict`. `report` gets a line for
    each engine that is built. ArtifactError where it is missing, damaged or of another version."""
    kind = read_format(folder)
    if kind == TRAINED:
        return TrainedLearner.load(folder, Machine.detect().device)
    if kind == ENSEMBLE:
        return TrainedEnsemble.load(folder, Machine.detect().device)
    if kind == PORTFOLIO:
        return Portfolio.load(folder, report)
    return FittedLearner.load(folder, report)
