"""Copies of backbones that are trained on meta-train classes. What comes of it is a variant of the backbone, whose
embedding joins a portfolio like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from autometa.backbones import View
from autometa.core.budget import TimeBudget
from autometa.core.sharing import SharedWork
from autometa.data.images import ImagePool, Rows, hash_images
from autometa.learners.training_memory import StepRecord
from autometa.planning.forecast import Forecast
from autometa.search.copy_training import CopyTraining, State
from autometa.search.shared_training import Given, SharedTraining

SAMPLE_IMAGES = 64
"""About so many images tell one set of them from another."""


@dataclass
class VariantTrainer:
    """Trains on the images at `rows` of a pool, `most_steps` steps at most by classification; `report` gets a line
    for each copy, and `step_memory` says what steps of the latest one took, where it is known."""

    pool: ImagePool
    rows: Rows
    forecast: Forecast
    report: Callable[[str], None]
    most_steps: int
    shared: SharedWork | None = None
    """Where earlier runs of a grid of budgets have left their copies."""
    step_memory: StepRecord | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        forecast = self.forecast
        episodes, memory, device = forecast.test.episodes, forecast.limits.memory, forecast.shelf.device
        self._training = CopyTraining(
            self.pool, self.rows, episodes, memory, device, self.most_steps, self.report
        )

    def train(self, view: View, budget: TimeBudget, *, turned: bool) -> None:
        """Train what the variant of a view names, at the size of the view, and put it on the shelf; see
        `CopyTraining.train`."""
        self.forecast.make_room()
        self.step_memory = None

        def work() -> State:
            state = self._training.train(view, budget, turned=turned)
            self.step_memory = self._training.step_memory
            return state

        self.adopt(view, self._share(view, budget, work, turned=turned) if self.shared else work())

    def adopt(self, view: View, state: State) -> None:
        """Put a trained copy on the shelf."""
        self.forecast.shelf.adopt(view.backbone, view.variant, state, view.px)

    def _share(self, view: View, budget: TimeBudget, work: Callable[[], State], *, turned: bool) -> State:
        """The weights of a copy, trained here or by an earlier run of a grid of budgets that gave it the same."""
        assert self.shared is not None
        sample = self.pool.images[self.rows[:: max(len(self.rows) // SAMPLE_IMAGES, 1)]]
        description = {
            "view": str(view),
            "weights": self.forecast.shelf(view.backbone).digest,
            "images": b"".join(hash_images(sample)).hex(),
            "rows": len(self.rows),
            "labels": hashlib.blake2b(self.pool.labels[self.rows].tobytes(), digest_size=16).hexdigest(),
            "episodes": str(self.forecast.test.episodes),
            "steps": self.most_steps,
            "turned": turned,
            "machine": self.shared.speed_label,
        }
        given = Given(budget.left_s(), self.forecast.limits.memory.left_bytes())
        state, earlier = SharedTraining(self.shared.folder / "trained").train(description, given, work)
        if earlier is not None:
            self.shared.note_peak(self.forecast.limits.memory, earlier.took_bytes)
            self.report(f"trained {view}: as an earlier run of this grid did, in {earlier.took_s:.1f} s")
        return state
