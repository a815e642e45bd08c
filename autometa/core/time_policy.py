"""How a time budget is divided: every share, margin and floor in one place.

`docs/architecture.md` works a budget of 60 s through this table, number by number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TimePolicy:
    """Shares are of the time left at that moment, unless they say otherwise; names that end in `_s` are seconds.
    The defaults are what was found to work on two cores. The search takes an instance, so that a test may give
    another; everything else uses `POLICY`. Guesses of costs, such as what a head takes before it was timed, are no
    policy: they stand beside what they guess."""

    # Margins: how much more than measured to reserve
    slowdown: float = 1.3
    """Where there are too few measurements: other load on a machine comes and goes."""
    least_margin: float = 1.1
    most_margin: float = 1.6
    """Bounds of the margin that the 95th percentile of many measurements gives, as multiples of their mean."""

    # The end, which is reserved before anything else is planned
    standby_share: float = 0.3
    """Of the start of a process, reserved for one that has started already: it is slow at first, too."""
    between_s: float = 0.5
    """Between the last answer of a process and the start of the next, where each task has one."""
    closing_s: float = 1.5
    """Between the last answer and the end of the budget."""
    ensemble_s: float = 2.0
    """For choosing weights, or which views answer; where that takes longer, the search keeps more free."""

    # Before the search
    stream_share: float = 0.1
    """For reading the images, where they come as a stream of tasks."""
    engine_share: float = 0.3
    """In which choosing an engine must fit easily."""
    probe_share: float = 0.07
    """After which no further backbone is measured."""
    build_share: float = 0.4
    """For building one engine."""

    # The search
    embed_share: float = 0.7
    """Of the time to search: embedding all images, in the search with every backbone that was measured."""
    few_folds_s: float = 60.0
    """Time to search up to which there are three folds, five beyond."""
    tune_share: float = 0.5
    """Of the time to spare: training a copy of a backbone by classification."""
    least_tune_s: float = 8.0
    """That is not begun with less."""
    tune_prepare_share: float = 0.5
    """Of the time for that: preparing the images."""
    family_share: float = 0.25
    """Of the time to spare: training a copy of a backbone by a learner."""
    least_family_s: float = 15.0
    """That is not begun with less."""
    family_prepare_share: float = 0.5
    """Of the time for that: preparing the images."""
    save_every_s: float = 5.0
    """Between two learners that a search saves."""

    # Systems that do not search
    trial_s: float = 2.0
    """Measuring a metric on a view, before one was timed: without it, none is begun."""
    prepare_share: float = 0.4
    """Preparing the images."""
    metrics_s: float = 4.0
    """For fitting the metrics of one view of a portfolio."""
    one_validation_share: float = 0.06
    """One validation of a training; dearer ones use fewer episodes."""
    validating_share: float = 0.15
    """Of the time of a training: all its validations, where no interval is given."""
    option_share: float = 0.15
    """Of the time of a training: a choice of options after it, where the learner makes one."""
    patient_share: float = 0.25
    """Of the steps or of the time of a training: what may pass without a better state."""
    step_margin: float = 1.5
    """How many times as long as the last one a step of a training may take."""
    workers_share: float = 0.15
    """After which no further backbone of MetaDelta is measured; each is also prepared for training, which takes
    longer than probing one for a search."""
    worker_train_share: float = 0.9
    """Of a worker's time after preparing: training; the rest is for its answer on all validation episodes."""
    save_training_every_s: float = 5.0
    """Between two states that a training saves."""

    # Meta-test
    task_share: float = 0.35
    """Of the time left: one task, unless it is the last. The first ones build engines and embed most images."""
    backbone_share: float = 0.5
    """Of the time left: the images of meta-test with a backbone at 128 px, else it is not built."""
    task_limit_share: float = 0.7
    """Of the seconds after which ingestion ends a task: networks, in one task."""
    clearly_share: float = 0.85
    """What was given up comes back where it needs no more than this."""
    coarser_share: float = 0.9
    """A lower resolution, which stays, must need no more than this share of what is needed without."""

    def folds(self, search_s: float) -> int:
        """How many folds the classes are dealt to."""
        return 3 if search_s <= self.few_folds_s else 5

    def tuning_s(self, spare_s: float) -> float:
        """Seconds for training a copy by classification; 0 where they would be too few."""
        seconds = self.tune_share * spare_s
        return seconds if seconds >= self.least_tune_s else 0.0

    def family_s(self, spare_s: float) -> float:
        """Seconds for training a copy by a learner; 0 where they would be too few."""
        seconds = self.family_share * spare_s
        return seconds if seconds >= self.least_family_s else 0.0


POLICY = TimePolicy()
"""What is used where nothing else is said."""
