"""Tuned copies of backbones: which, within what time, and once more on all classes for those that were chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import TUNED, View, build_backbone, untuned
from autometa.bench import Bench
from autometa.budget import TimeBudget
from autometa.errors import BudgetExhausted, ConfigError
from autometa.forecast import RACE_S, Forecast
from autometa.learners.encoder import EncoderSpec, TailEncoder
from autometa.learners.storage import Storage
from autometa.planning import SLOWDOWN
from autometa.tuning import Tuned, tune_tail

TUNED_STAGES, TUNED_PX = 2, 128
"""Stages that are tuned, and the resolution from which on a coarser one does for it."""
LEAST_TUNE_S = 12.0
"""Tuning is not begun with less."""
TUNE_BYTES, TUNE_BYTES_SHARE = 500 * 2**20, 0.4
"""Memory that must be there for it; share of it that activations may take, more of them go to the disk."""
AGAIN = "-all"
"""What the name of a copy that was tuned on all classes ends with."""


@dataclass
class Tuner:
    """Tunes the last stages of backbones by classification of meta-train classes, `most_steps` at most."""

    bench: Bench
    forecast: Forecast
    report: Callable[[str], None]
    most_steps: int
    _done: dict[str, tuple[View, Tuned]] = field(default_factory=dict, init=False)

    @property
    def copies(self) -> list[str]:
        """Names of the tuned copies."""
        return list(self._done)

    def views(self, best: View, within_s: float) -> list[View]:
        """The view's backbone, tuned on the classes to fit on, at the view's size and at that of the tuning; none
        where there is no time or room, or the network can not be cut."""
        images, labels = self.bench.images[self.bench.size :], self.bench.fit_labels
        if not (self.most_steps and len(images)) or within_s < LEAST_TUNE_S:
            return []
        name = best.backbone + TUNED
        best = View(best.backbone, best.px)
        if not self._tune(name, best, images, labels, self._budget(within_s), self.most_steps):
            return []
        sizes = dict.fromkeys((best.px, self._px(best)))
        return [View(name, px) for px in sizes]

    def on_all_classes(self, view: View, spare_s: float) -> View | None:
        """The view of a tuned copy, tuned as before but on all classes of the bench, now that there is nothing left
        to choose; None where `spare_s` does not do for that and for embedding the bench with it."""
        best, before = self._done[view.backbone]
        share = len(self.bench.images) / (len(self.bench.images) - self.bench.size)
        needed_s = SLOWDOWN * (share * before.prepare_s + before.train_s + self.embed_s(view))
        if needed_s > spare_s:
            self.report(
                f"{view.backbone} is not tuned on all classes: {needed_s:.1f} s, {spare_s:.1f} s left"
            )
            return None
        name = view.backbone + AGAIN
        budget = self._budget(needed_s)
        if not self._tune(name, best, self.bench.images, self.bench.labels, budget, before.steps):
            return None
        return replace(view, backbone=name)

    def embed_s(self, view: View) -> float:
        """Predicted seconds until a new copy has embedded the bench in a view."""
        return len(self.bench.keys) * self.forecast.image_s(view) + RACE_S

    def _px(self, view: View) -> int:
        return self.forecast.shelf(untuned(view.backbone)).input_px(min(view.px, TUNED_PX))

    def _budget(self, seconds: float) -> TimeBudget:
        train = self.forecast.limits.train
        return TimeBudget(min(train.clock() + seconds, train.deadline - self.forecast.finish_s), train.clock)

    def _tune(
        self,
        name: str,
        best: View,
        images: NDArray[np.uint8],
        labels: torch.Tensor,
        budget: TimeBudget,
        steps: int,
    ) -> bool:
        """Put the copy `name` of a backbone on the shelf; False, after a report, where it came to nothing."""
        shelf, memory, px = self.forecast.shelf, self.forecast.limits.memory, self._px(best)
        if not memory.fits(TUNE_BYTES):
            self.report(f"{best.backbone}@{px} is not tuned: too little memory")
            return False
        spec = EncoderSpec(network=best.backbone, px=px, trainable=TUNED_STAGES)
        storage = Storage(TUNE_BYTES_SHARE * memory.left_bytes())
        try:
            encoder = TailEncoder(build_backbone(best.backbone, "cpu"), spec).to(shelf.device)
            tuned = tune_tail(encoder, images, labels, budget, storage, steps)
        except (BudgetExhausted, ConfigError, RuntimeError, ValueError) as error:
            self.report(f"{best.backbone}@{px} is not tuned: {error}")
            return False
        shelf.adopt(name, tuned.state, best.px)
        self._done[name] = best, tuned
        self.report(
            f"tuned {best.backbone}@{px}: {tuned.steps} steps in {tuned.train_s:.1f} s, after "
            f"{tuned.prepare_s:.1f} s for {len(labels)} images of {len(set(labels.tolist()))} classes"
        )
        return True
