"""Tuned copies of backbones: which, and within what time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from autometa.backbones import TUNED, View, build_backbone
from autometa.core.budget import TimeBudget
from autometa.core.errors import BudgetExhausted, ConfigError
from autometa.evaluation.validation_set import ValidationSet
from autometa.learners.encoder import EncoderSpec, TailEncoder
from autometa.learners.prepared import PreparedImages
from autometa.learners.storage import Storage
from autometa.learners.tail_classification import TunedBackbone, tune_tail
from autometa.planning.forecast import RACE_S, Forecast

TUNED_STAGES, TUNED_PX = 2, 128
"""Stages that are tuned, and the resolution from which on a coarser one does for it."""
TUNE_BYTES, TUNE_BYTES_SHARE = 500 * 2**20, 0.4
"""Memory that must be there for it; share of it that activations may take, more of them go to the disk."""


@dataclass
class BackboneTuner:
    """Tunes the last stages of backbones by classification of meta-train classes, `most_steps` at most."""

    validation_set: ValidationSet
    forecast: Forecast
    report: Callable[[str], None]
    most_steps: int
    _last: TunedBackbone | None = field(default=None, init=False)

    def predicted_s(self, within_s: float) -> float:
        """Predicted seconds of tuning one more backbone: as many as the one before took, else all that it may."""
        return min(within_s, self._last.prepare_s + self._last.train_s) if self._last else within_s

    def tune(self, best: View, within_s: float) -> list[View]:
        """The view's backbone, tuned within `within_s` (0: not) on the classes to fit on, at the view's size and at
        that of the tuning; none where there is no time or memory, or the network cannot be split."""
        if not (self.most_steps and len(self.validation_set.fit_labels)) or not within_s:
            return []
        self.forecast.make_room()
        px = self.forecast.shelf(best.backbone).input_px(min(best.px, TUNED_PX))
        train = self.forecast.limits.train
        deadline = min(train.clock() + within_s, train.deadline - self.forecast.finish_s)
        if not self._tune(best, px, TimeBudget(deadline, train.clock)):
            return []
        return [View(best.backbone, each, variant=TUNED) for each in dict.fromkeys((best.px, px))]

    def embed_s(self, view: View) -> float:
        """Predicted seconds until a new copy has embedded the validation set in a view."""
        return len(self.validation_set.keys) * self.forecast.image_s(view) + RACE_S

    def _tune(self, best: View, px: int, budget: TimeBudget) -> bool:
        """Put the tuned copy of the view's backbone on the shelf; False, after a report, where it came to nothing."""
        shelf, memory = self.forecast.shelf, self.forecast.limits.memory
        if not memory.fits(TUNE_BYTES):
            self.report(f"{best.backbone}@{px} is not tuned: too little memory")
            return False
        images, labels = (
            self.validation_set.images[self.validation_set.size :],
            self.validation_set.fit_labels,
        )
        spec = EncoderSpec(network=best.backbone, px=px, trainable=TUNED_STAGES)
        prepared = PreparedImages(images, Storage(TUNE_BYTES_SHARE * memory.left_bytes()))
        try:
            encoder = TailEncoder(build_backbone(best.backbone, "cpu"), spec).to(shelf.device)
            tuned = tune_tail(encoder, prepared, labels, budget, self.most_steps)
        except (BudgetExhausted, ConfigError, RuntimeError, ValueError) as error:
            self.report(f"{best.backbone}@{px} is not tuned: {error}")
            return False
        shelf.adopt(best.backbone, TUNED, tuned.state, best.px)
        self._last = tuned
        self.report(
            f"tuned {best.backbone}@{px}: {tuned.steps} steps in {tuned.train_s:.1f} s, after "
            f"{tuned.prepare_s:.1f} s for {len(labels)} images of {len(set(labels.tolist()))} classes"
        )
        return True
