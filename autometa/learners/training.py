"""The episodic training loop: within a time budget, the best validated state kept, resumable."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from autometa.core.budget import UNLIMITED, MemoryBudget, TimeBudget, stopwatch
from autometa.core.errors import DataError
from autometa.core.machine import starts_cold
from autometa.core.time_policy import POLICY
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.base import EpisodicLearner
from autometa.learners.centring import Centring
from autometa.learners.checkpoint import Progress, changing_nothing, load_progress, save_progress
from autometa.learners.episodes import EpisodeSource
from autometa.learners.hooks import ClassTrained, OptionChooser
from autometa.learners.optimizers import build_optimizer
from autometa.learners.patience import Patience
from autometa.learners.schedule import TrainingSchedule, scale_rate
from autometa.learners.training_memory import StepMemory, StepRecord
from autometa.learners.training_settings import TrainingSettings
from autometa.learners.trial_validation import Chosen, check_all_episodes, choose_episodes

OUT_OF_TIME = "the time is used"
STEPS_MADE = "all steps made"
DIVERGED = "the loss is no number any more: lower the learning rate"


@dataclass(frozen=True)
class Validation:
    """Paired episodes of classes that are not trained on, over images whose encoder `inputs` [n, ...] are
    given."""

    inputs: torch.Tensor
    episodes: ValidationEpisodes


@dataclass(frozen=True)
class TrainingRecord:
    """What training did: `untrained` and `best` answers, steps, seconds, why it ended, whether it ended because its
    loss was no number any more, and what its steps took of the memory, where that was planned."""

    untrained: Answer
    best: Answer
    steps: int
    seconds: float
    ended: str
    diverged: bool = False
    memory: StepRecord | None = None

    def summary(self) -> str:
        """One line for people: steps, seconds, why it ended, accuracy in % before and after."""
        return (
            f"{self.steps} steps in {self.seconds:.1f} s, {self.ended}; "
            f"{100 * self.untrained.mean:.1f} before, {100 * self.best.mean:.1f} after"
        )


@dataclass
class Training:
    """One training of a learner on a device. `improved` is called whenever validation finds a better state (or
    one that is as accurate and surer), which the learner then holds; with a `checkpoint` folder a training that
    was killed goes on where the last validation left it. With a `memory` budget as many episodes are taken at once as
    are predicted to have room. `task_s`: seconds that a task was measured to take with the slowest options (0: not
    measured). BudgetExhausted where not even one has, or where the first steps show that fewer than
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
    memory: MemoryBudget | None = None
    task_s: float = 0.0
    progress: Progress = field(default_factory=Progress, init=False)

    def run(self) -> TrainingRecord:
        """Train; at the end the learner holds its best state, which may be the untrained one."""
        self._start()
        untrained, schedule = self._untrained, self._schedule
        try:
            while not (ended := self._why_to_end()):
                self._step()
                schedule.check_worth(self.least_steps)
                if schedule.is_validation_due():
                    self._validate()
                    self._go_back_if_stale()
                    self._save()
            if schedule.steps_since_validation:
                self._validate()
                self._save()
                ended = DIVERGED if self.progress.diverged else ended
        finally:  # whatever ends it
            self.learner.load_state_dict(self._best_state)
            self.learner.eval()
        if isinstance(self.learner, OptionChooser):
            in_time = self.settings.repeatable and ended != OUT_OF_TIME
            budget = UNLIMITED if in_time else self.budget
            given = self.validation
            self.report(self.learner.choose_options(given.inputs, given.episodes, budget, self.task_s))
        return TrainingRecord(
            untrained,
            self._best,
            schedule.steps,
            schedule.spent_s,
            ended,
            ended == DIVERGED,
            self._memory.record,
        )

    def _start(self) -> None:
        """Everything before the first step: the optimizer, the schedule, the answer of the untrained learner; or
        where an interrupted training left them."""
        settings = self.settings
        torch.manual_seed(settings.seed)
        self._module = self._with_classifier().to(self.device)
        self._trained = [p for p in self._module.parameters() if p.requires_grad]
        self._optimizer = self._build_optimizer()
        self._memory = StepMemory(self.learner, self._trained, settings, self.device, self.memory)
        chooses = isinstance(self.learner, OptionChooser)
        budget = self.budget.share(1 - POLICY.option_share) if chooses else self.budget
        self._schedule = TrainingSchedule(
            budget, settings.max_steps, settings.validate_every, repeatable=settings.repeatable
        )
        bounded = settings.max_steps is not None or np.isfinite(self._schedule.whole_s)
        self._patience = Patience(settings.patience, bounded)
        self.budget.check("training")
        with changing_nothing(self._module, self._optimizer):
            self._memory.plan(self.source)
        if starts_cold(self.device):
            self._make_first_calls()
        self._centring = Centring(self.learner, self.source, self.device)
        chosen = self._choose_episodes()
        self._episodes = chosen.episodes
        if chosen.answer is not None:
            self._schedule.add_validation(chosen.seconds)
        self._untrained = self._best = chosen.answer or self._measure()
        self._best_state = copy.deepcopy(self.learner.state_dict())
        resumed = self.checkpoint and load_progress(self.checkpoint, self._module, self._optimizer)
        if resumed:
            self._resume(*resumed)
        else:
            self.progress.untrained = self._untrained.accuracies.tolist()
        self.report(f"untrained: {self._untrained.percent()}")

    def _make_first_calls(self) -> None:
        """A validation and a step, where there is something to train, that change nothing: neither tells what later
        ones take on a device that starts cold."""
        few = ValidationEpisodes(self.validation.episodes.episodes[:1])
        with changing_nothing(self._module, self._optimizer):
            self.learner.validate(self.validation.inputs, few)
            if self._trained:
                self.learner.train()
                self.learner.accumulate(self.source.draw(self.settings.meta_batch).to(self.device))

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

    def _build_optimizer(self) -> torch.optim.Optimizer:
        """Over what is trained, in groups with the rate that each starts from: the learner's weights, its scales and
        inner rates, the classifier."""
        settings, factors = self.settings, self.learner.rate_factors()
        names = {id(p): name for name, p in self.learner.named_parameters()}
        weights, classifier = settings.learning_rate, settings.classifier_rate or settings.learning_rate
        parts: dict[tuple[bool, float], list[torch.nn.Parameter]] = {
            (True, weights): [],
            (False, classifier): [],
        }
        for p in self._trained:
            own = id(p) in names
            rate = weights * factors.get(names[id(p)], 1.0) if own else classifier
            parts.setdefault((own, rate), []).append(p)
        groups = [{"params": params, "full_rate": rate} for (_, rate), params in parts.items()]
        return build_optimizer(groups, settings)

    def _choose_episodes(self) -> Chosen:
        every, budget = self.validation.episodes.episodes, self.budget
        if self.settings.repeatable:
            return check_all_episodes(self._answer, every, budget)
        return choose_episodes(self._answer, every, budget, self._schedule.whole_s, self.report)

    def _resume(self, progress: Progress, best_state: dict[str, torch.Tensor]) -> None:
        """Go on from what a checkpoint holds."""
        self.progress, self._best_state = progress, best_state
        self._schedule.steps, self._schedule.earlier_s = progress.step, progress.seconds
        self._untrained = Answer((), np.array(progress.untrained))
        self._episodes = ValidationEpisodes(self.validation.episodes.episodes[: len(progress.untrained)])
        self._best = Answer((), np.array(progress.best), progress.best_log_loss)
        if progress.source is not None and hasattr(self.source, "restore"):
            self.source.restore(progress.source)
        self.report(f"goes on at step {progress.step}, best so far {self._best.percent()}")

    def _why_to_end(self) -> str:
        """A reason, or nothing."""
        settings, schedule = self.settings, self._schedule
        if not self._trained:
            return "it has nothing to train"
        if self.progress.diverged:
            return DIVERGED
        if settings.max_steps is not None and schedule.steps >= settings.max_steps:
            return STEPS_MADE
        if lost := self._patience.why_to_end(self.progress, self._best.mean):
            return lost
        return "" if schedule.fits_step() else OUT_OF_TIME

    def _go_back_if_stale(self) -> None:
        """To the best state, with a smaller rate, where there was no better one for long."""
        if self._patience.is_lost(self.progress, self._schedule.share_done):
            self._patience.reduce(self.progress, self._schedule.share_done)
            self.learner.load_state_dict(self._best_state)
            self._optimizer.state.clear()  # its moments are those of another place

    def _step(self) -> None:
        """One step on a meta-batch; where the loss is no number, nothing is changed but `diverged`."""
        elapsed = stopwatch(self.budget.clock)
        self.learner.train()
        self.learner.share_done = done = self._schedule.share_done
        scale = self.progress.rate_scale * scale_rate(self.settings, done)
        for group in self._optimizer.param_groups:
            group["lr"] = group["full_rate"] * scale
        episodes = self.source.draw(self.settings.meta_batch).to(self.device)
        self._optimizer.zero_grad()
        loss = self._memory.watch(episodes)
        if not np.isfinite(loss):
            self.progress.diverged = True
            return
        if self.settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(self._trained, self.settings.clip)
        self._optimizer.step()
        self._schedule.add_step(elapsed())

    def _measure(self) -> Answer:
        """The learner's answer on the validation episodes, timed."""
        elapsed = stopwatch(self.budget.clock)
        answer = self._answer(self._episodes)
        self._schedule.add_validation(elapsed())
        return answer

    def _answer(self, episodes: ValidationEpisodes) -> Answer:
        self._centring.update()
        return self.learner.validate(self.validation.inputs, episodes)

    def _validate(self) -> None:
        """Measure; keep the state if it is the best. Scores that are no numbers count as wrong answers, which may be
        more accurate than those of an untrained learner: a state that gives some is never the best."""
        answer, progress, schedule = self._measure(), self.progress, self._schedule
        progress.stale += 1
        usable = not math.isnan(answer.log_loss)
        better = usable and answer.mean > self._best.mean
        surer = usable and answer.mean == self._best.mean and answer.log_loss < self._best.log_loss
        if not usable:
            progress.diverged = progress.diverged or not is_finite(self._module)
        if better or surer:
            self._best, self._best_state = answer, copy.deepcopy(self.learner.state_dict())
            self.improved(self._best)
        if better:
            progress.best_at = schedule.share_done
            progress.stale = 0
            self.report(f"step {schedule.steps}: {self._best.percent()}")
        progress.best = self._best.accuracies.tolist()
        progress.best_log_loss = self._best.log_loss

    def _save(self) -> None:
        """Write a checkpoint, if there is a folder for it."""
        if self.checkpoint is None:
            return
        progress, schedule = self.progress, self._schedule
        progress.step, progress.source = schedule.steps, None
        if hasattr(self.source, "state"):
            progress.source = self.source.state()
        spent = progress.model_copy(update={"seconds": schedule.spent_s})
        save_progress(self.checkpoint, spent, self._module, self._best_state, self._optimizer)


def is_finite(module: torch.nn.Module) -> bool:
    """Whether all numbers of its state are finite."""
    return all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values())
