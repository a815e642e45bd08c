"""The episodic training loop: within a time budget, the best validated state kept, resumable."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.errors import BudgetExhausted, DataError
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.base import EpisodicLearner
from autometa.learners.checkpoint import Progress, load_progress, save_progress
from autometa.learners.episodes import EpisodeSource
from autometa.learners.hooks import ClassTrained, OptionChooser

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}
PROBED, GROWTH = 4, 5
"""Episodes of the first trial validation, and how many times more the next one has."""
ONE_VALIDATION_SHARE = 0.06
"""Share of the budget that one validation may take; dearer ones use fewer episodes."""
VALIDATION_SHARE = 0.15
"""Share of the time that validation may take where no interval is given."""
REMEMBERED_SHARE = 0.9
"""Of the time of a dear step that the next one is taken to need at least."""
PERFECT = 5
"""Validations without a mistake after which there is nothing left to learn from."""
PATIENT_SHARE = 0.25
"""Of the steps or of the time that may pass without a better state."""
DIVERGED = "the loss is no number any more: lower the learning rate"
SETTLE_SHARE = 0.15
"""Share of the budget that is kept for a choice after training, where the learner makes one."""
SLOWDOWN = 1.5
"""How much slower than the last one a step may be."""
FIRST_STEPS = 3
"""Steps that tell how many will fit; the very first is slower than others."""


class TrainingSettings(BaseModel):
    """`meta_batch` episodes a step; `optimizer` with `learning_rate` (`classifier_rate`, where given, for a
    classifier that only training needs) falling along a cosine to zero at the end of the budget or at
    `max_steps`; gradients clipped to length `clip`. Validation every `validate_every` steps,
    or as often as it takes a fixed share of the time; training ends after `patience` of them without a better
    one, which also are a fixed share of the steps or of the time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    meta_batch: int = Field(default=4, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    classifier_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=5.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    validate_every: int | None = Field(default=None, ge=1)
    patience: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Validation:
    """Paired episodes of classes that are not trained on, over images whose encoder `inputs` [n, ...] are
    given."""

    inputs: torch.Tensor
    episodes: ValidationEpisodes


@dataclass(frozen=True)
class TrainingRecord:
    """What training did: `untrained` and `best` answers, steps, seconds, why it ended, and whether that was since
    its loss was no number any more."""

    untrained: Answer
    best: Answer
    steps: int
    seconds: float
    ended: str
    diverged: bool = False


@dataclass
class Training:
    """One training of a learner on a device. `improved` is called whenever validation finds a better state (or
    one that is as accurate and surer), which the learner then holds; with a `checkpoint` folder a training that
    was killed goes on where the last validation left it. BudgetExhausted where the first steps tell that fewer than
    `least_steps` will fit."""

    learner: EpisodicLearner
    source: EpisodeSource
    validation: Validation
    settings: TrainingSettings
    budget: TimeBudget
    device: str = "cpu"
    checkpoint: Path | None = None
    improved: Callable[[Answer], None] = lambda _: None
    report: Callable[[str], None] = lambda _: None
    least_steps: int = 0
    progress: Progress = field(default_factory=Progress, init=False)

    def run(self) -> TrainingRecord:
        """Train; at the end the learner holds its best state, which may be the untrained one."""
        self._start()
        untrained = self._untrained
        try:
            while not (ended := self._why_to_end()):
                self._step()
                self._check_worth()
                if self._validation_due():
                    self._validate()
            if self._since_validation:
                self._validate()
        finally:  # whatever ends it
            self.learner.load_state_dict(self._best_state)
            self.learner.eval()
        if isinstance(self.learner, OptionChooser):
            self.report(
                self.learner.choose_options(self.validation.inputs, self.validation.episodes, self.budget)
            )
        return TrainingRecord(
            untrained, self._best, self.progress.step, self._spent_s(), ended, ended == DIVERGED
        )

    def _start(self) -> None:
        torch.manual_seed(self.settings.seed)
        self._module = self._with_classifier().to(self.device)
        self._trained = [p for p in self._module.parameters() if p.requires_grad]
        self._optimizer = OPTIMIZERS[self.settings.optimizer](
            self._groups(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
        )
        settles = isinstance(self.learner, OptionChooser)
        self._loop = self.budget.share(1 - SETTLE_SHARE) if settles else self.budget
        self._elapsed, self._whole_s = stopwatch(self.budget.clock), self._loop.left_s()
        self._since_validation, self._step_s, self._trained_s = 0, 0.0, 0.0
        self._latest_s, self._validate_s, self._stopped = (
            0.0,
            0.0,
            "" if self._trained else "it has nothing to train",
        )
        self.budget.check("training")
        self._episodes = self._affordable_episodes()
        self._measure()
        self._step_s = self._validate_s  # a guess, until there was a step
        self._untrained = self._best = self._latest
        self._best_state = copy.deepcopy(self.learner.state_dict())
        if self.checkpoint is not None and (
            resumed := load_progress(self.checkpoint, self._module, self._optimizer)
        ):
            self._resume(resumed)
        else:
            self.progress.untrained = self._untrained.accuracies.tolist()
        self.report(f"untrained: {self._untrained.percent()}")

    def _groups(self) -> list[dict[str, Any]]:
        """What is trained, by its rate at the start; in the order of the parameters."""
        settings = self.settings
        own = {id(p) for p in self.learner.parameters()}
        parts = [[p for p in self._trained if id(p) in own], [p for p in self._trained if id(p) not in own]]
        rates = settings.learning_rate, settings.classifier_rate or settings.learning_rate
        return [{"params": p, "full_rate": rate} for p, rate in zip(parts, rates, strict=True)]

    def _with_classifier(self) -> torch.nn.Module:
        """The learner, together with the classifier that only its training needs, if it needs one."""
        if not isinstance(self.learner, ClassTrained):
            return self.learner
        classes = getattr(self.source, "classes", None)
        if classes is None:
            raise DataError(
                f"{type(self.learner).__name__} learns to classify, but {type(self.source).__name__} does not "
                "say how many `classes` it draws from"
            )
        return torch.nn.ModuleDict(
            {"learner": self.learner, "classifier": self.learner.begin_training(classes)}
        )

    def _affordable_episodes(self) -> ValidationEpisodes:
        """As many of the validation episodes as take a small share of the budget: ever more are tried, since
        episodes share images and the cost does not grow with their number."""
        every, number = self.validation.episodes.episodes, PROBED
        while number < len(every):
            elapsed = stopwatch(self.budget.clock)
            self.learner.validate(self.validation.inputs, ValidationEpisodes(every[:number]))
            if GROWTH * elapsed() > ONE_VALIDATION_SHARE * self._whole_s:
                self.report(f"{number} of {len(every)} validation episodes: they take {elapsed():.1f} s")
                return ValidationEpisodes(every[:number])
            number *= GROWTH
        return self.validation.episodes

    def _resume(self, resumed: tuple[Progress, dict[str, torch.Tensor]]) -> None:
        self.progress, self._best_state = resumed
        self._untrained = Answer((), np.array(self.progress.untrained))
        self._episodes = ValidationEpisodes(self.validation.episodes.episodes[: len(self.progress.untrained)])
        self._best = Answer((), np.array(self.progress.best), self.progress.best_log_loss)
        if self.progress.source is not None and hasattr(self.source, "restore"):
            self.source.restore(self.progress.source)
        self.report(f"goes on at step {self.progress.step}, best so far {self._best.percent()}")

    def _why_to_end(self) -> str:
        """A reason, or nothing."""
        if self._stopped:
            return self._stopped
        if self._best.mean == 1.0 and self.progress.stale >= PERFECT:
            return "every validation episode is right"
        if self.settings.max_steps is not None and self.progress.step >= self.settings.max_steps:
            return "all steps made"
        bounded = self.settings.max_steps is not None or np.isfinite(self._whole_s)
        waited = self._share_done() - self.progress.best_at > PATIENT_SHARE or not bounded
        if self.progress.stale >= self.settings.patience and waited:
            return "no better state for long"
        if not self._loop.fits(SLOWDOWN * (self._step_s + self._validate_s)):
            return "the time is used"
        return ""

    def _step(self) -> None:
        elapsed = stopwatch(self.budget.clock)
        self.learner.train()
        for group in self._optimizer.param_groups:
            group["lr"] = group["full_rate"] * 0.5 * (1 + np.cos(np.pi * self._share_done()))
        episodes = self.source.draw(self.settings.meta_batch).to(self.device)
        self._optimizer.zero_grad()
        mixed = self.device == "cuda" and self.learner.mixed_precision
        with torch.autocast(self.device, torch.bfloat16, enabled=mixed):
            loss = self.learner.accumulate(episodes)
        if not np.isfinite(loss):
            self._stopped = DIVERGED
            return
        torch.nn.utils.clip_grad_norm_(self._trained, self.settings.clip)
        self._optimizer.step()
        self.progress.step += 1
        self._since_validation += 1
        step_s = elapsed()
        self._step_s = max(step_s, REMEMBERED_SHARE * self._step_s)  # steps differ by their ways and shots
        self._trained_s += step_s
        self._latest_s = step_s

    def _check_worth(self) -> None:
        """BudgetExhausted where the first steps tell that too few will fit."""
        if self.progress.step != FIRST_STEPS:
            return
        missing = self.least_steps - FIRST_STEPS
        if missing > 0 and not self._loop.fits(missing * self._latest_s):
            raise BudgetExhausted(
                f"a training step takes {self._latest_s:.2f} s: fewer than {self.least_steps} fit in the "
                f"{max(self._loop.left_s(), 0):.1f} s left"
            )

    def _share_done(self) -> float:
        """Of the steps or of the time, whichever is further."""
        steps = self.progress.step / self.settings.max_steps if self.settings.max_steps else 0.0
        whole_s = self.progress.seconds + self._whole_s
        return min(max(steps, self._spent_s() / whole_s if whole_s else 1.0), 1.0)

    def _validation_due(self) -> bool:
        if self.settings.validate_every is not None:
            return self._since_validation >= self.settings.validate_every
        return self._trained_s >= self._validate_s / VALIDATION_SHARE

    def _measure(self) -> None:
        elapsed = stopwatch(self.budget.clock)
        self._latest = self.learner.validate(self.validation.inputs, self._episodes)
        self._validate_s = elapsed()

    def _validate(self) -> None:
        """Measure; keep the state if it is the best; write a checkpoint."""
        self._measure()
        self._since_validation, self._trained_s = 0, 0.0
        self.progress.stale += 1
        better = self._latest.mean > self._best.mean
        surer = self._latest.mean == self._best.mean and self._latest.log_loss < self._best.log_loss
        if better or surer:
            self._best, self._best_state = self._latest, copy.deepcopy(self.learner.state_dict())
            self.improved(self._best)
        if better:
            self.progress.best_at = self._share_done()
            self.progress.stale = 0
            self.report(f"step {self.progress.step}: {self._best.percent()}")
        self.progress.best = self._best.accuracies.tolist()
        self.progress.best_log_loss = self._best.log_loss
        if self.checkpoint is not None:
            self.progress.source = self.source.state() if hasattr(self.source, "state") else None
            spent = self.progress.model_copy(update={"seconds": self._spent_s()})
            save_progress(self.checkpoint, spent, self._module, self._best_state, self._optimizer)

    def _spent_s(self) -> float:
        return self.progress.seconds + self._elapsed()
