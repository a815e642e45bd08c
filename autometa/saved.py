"""Whatever kind of learner was saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autometa.artifact import format_of
from autometa.budget import Machine
from autometa.learner import FittedLearner
from autometa.learners.trained import FORMAT as TRAINED
from autometa.learners.trained import TrainedLearner

AnyLearner = FittedLearner | TrainedLearner


def load_learner(folder: Path, report: Callable[[str], None] | None = None) -> AnyLearner:
    """The learner that a run has saved in `folder`: one that the search chose, or one that was trained. Both
    `fit` a support set, and what comes of it can `predict`. `report` gets a line for each engine that is built.
    ArtifactError where it is missing, damaged or of another version."""
    if format_of(folder) == TRAINED:
        return TrainedLearner.load(folder, Machine.detect().device)
    return FittedLearner.load(folder, report)
