"""Copies of backbones that are trained on meta-train classes: by classification, or by a learner of `FAMILIES`. What
comes of it is a variant of the backbone, whose embedding joins a portfolio like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from autometa.backbones import TUNED, View, build_backbone
from autometa.core.budget import TimeBudget
from autometa.core.errors import BudgetExhausted, TooLittleMemory
from autometa.core.sharing import SharedWork
from autometa.core.time_policy import POLICY
from autometa.data.images import ImagePool, Rows, hash_images
from autometa.learners.encoder import EncoderSpec, TailEncoder
from autometa.learners.prepared import PreparedImages
from autometa.learners.storage import Storage
from autometa.learners.tail_classification import tune_tail
from autometa.learners.training_memory import StepRecord
from autometa.planning.forecast import Forecast
from autometa.search.families import find_family
from autometa.search.family_training import TrainingSet, train_family
from autometa.search.shared_training import Given, SharedTraining
from autometa.search.workbench import orient

TUNED_STAGES = 2
"""Last stages that are trained by classification."""
TURNS = 4
"""Orientations whose classes are told apart, too, where turned classes help."""
TRAINING_BYTES, STORAGE_SHARE = 600 * 2**20, 0.4
"""Memory that must be there; share of it that activations may take, more of them go to the disk."""
SAMPLE_IMAGES = 64
"""About so many images tell one set of them from another."""


@dataclass
class VariantTrainer:
    """Trains on the images at `rows` of a pool, `most_steps` steps at most by classification; `report` gets a line
    for each copy, and `memory` says what steps of the latest one took."""

    pool: ImagePool
    rows: Rows
    forecast: Forecast
    report: Callable[[str], None]
    most_steps: int
    shared: SharedWork | None = None
    """Where earlier runs of a grid of budgets have left their copies."""
    memory: StepRecord | None = field(default=None, init=False)
    _prepared: dict[int, PreparedImages] = field(default_factory=dict, init=False)

    def train(self, view: View, budget: TimeBudget, *, turned: bool) -> None:
        """Train what the variant of a view names, at the size of the view, and put it on the shelf. `turned`: turned
        images are further classes to tell apart. BudgetExhausted where time or memory is too short; ConfigError where
        the network cannot be split; errors of the training as they come."""
        self.memory = None
        self.forecast.make_room()
        if not self.forecast.limits.memory.fits(TRAINING_BYTES):
            raise BudgetExhausted(f"too little memory is left to train {view}")

        def work() -> dict[str, torch.Tensor]:
            if view.variant == TUNED:
                return self._classify_as_deep_as_fits(view, budget, turned=turned)
            return self._train_family(view, budget)

        state = self._share(view, budget, work, turned=turned) if self.shared else work()
        self.forecast.shelf.adopt(view.backbone, view.variant, state, view.px)

    def _share(
        self, view: View, budget: TimeBudget, work: Callable[[], dict[str, torch.Tensor]], *, turned: bool
    ) -> dict[str, torch.Tensor]:
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

    def _classify_as_deep_as_fits(
        self, view: View, budget: TimeBudget, *, turned: bool
    ) -> dict[str, torch.Tensor]:
        """Of the last stages as many as are predicted to have room."""
        for stages in range(TUNED_STAGES, 1, -1):
            try:
                return self._classify(view, budget, stages, turned=turned)
            except TooLittleMemory as error:
                self.report(f"{view}: fewer stages are tuned: {error}")
        return self._classify(view, budget, 1, turned=turned)

    def _classify(
        self, view: View, budget: TimeBudget, stages: int, *, turned: bool
    ) -> dict[str, torch.Tensor]:
        spec = EncoderSpec(network=view.backbone, px=view.px, trainable=stages)
        encoder = TailEncoder(build_backbone(view.backbone, "cpu"), spec).to(self.forecast.shelf.device)
        turns = TURNS if turned and self._can_turn(encoder, budget) else 1
        labels = self.pool.labels[self.rows]
        numbered = torch.from_numpy(np.concatenate([labels + self.pool.classes * n for n in range(turns)]))
        memory = self.forecast.limits.memory
        tuned = tune_tail(encoder, self._images(turns), numbered, budget, self.most_steps, memory)
        self.memory = tuned.memory
        self.report(
            f"trained {view}: {tuned.steps} steps in {tuned.train_s:.1f} s, after {tuned.prepare_s:.1f} s for "
            f"{len(numbered)} images of {len(set(numbered.tolist()))} classes"
        )
        return tuned.state

    def _can_turn(self, encoder: TailEncoder, budget: TimeBudget) -> bool:
        """Whether there is time to prepare the images in all orientations, and memory for them, twice while they are
        put together."""
        n_images = TURNS * len(self.rows)
        if not self.forecast.limits.memory.fits(TRAINING_BYTES + 2 * n_images * self.pool.images[:1].nbytes):
            return False
        return (
            n_images * self._images(1).image_s(encoder, budget) <= POLICY.tune_prepare_share * budget.left_s()
        )

    def _train_family(self, view: View, budget: TimeBudget) -> dict[str, torch.Tensor]:
        recipe = find_family(view.variant).recipe(view.backbone, view.px, self.forecast.test.episodes)
        training_set = TrainingSet(
            self._images(1),
            self.pool.labels[self.rows],
            self.pool.dataset_of_class,
            self.forecast.test.episodes,
            self.forecast.shelf.device,
            self.forecast.limits.memory,
        )
        learner = train_family(recipe, training_set, budget, report=self.report)
        self.memory = learner.memory
        state = learner.learner.encoder.backbone_state()
        assert state is not None, f"{view.variant} trains no backbone"
        return state

    def _images(self, turns: int) -> PreparedImages:
        """The images in so many orientations; kept, since learners with the same trunk share what they prepare."""
        if turns not in self._prepared:
            self._prepared.clear()  # there may be room for one only
            images = self.pool.images[self.rows]
            seen = np.concatenate([orient(images, n) for n in range(turns)]) if turns > 1 else images
            storage = Storage(STORAGE_SHARE * self.forecast.limits.memory.left_bytes())
            self._prepared[turns] = PreparedImages(seen, storage)
        return self._prepared[turns]
