"""Training one copy of a backbone on images of known classes: by classification, or by a learner of `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from autometa.backbones import TUNED, View, build_backbone
from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.errors import BudgetExhausted, TooLittleMemory
from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool, Rows
from autometa.learners.encoder import EncoderSpec, TailEncoder
from autometa.learners.prepared import PreparedImages
from autometa.learners.storage import Storage
from autometa.learners.tail_classification import tune_tail
from autometa.learners.training_memory import StepRecord
from autometa.search.families import find_family
from autometa.search.family_training import TrainingSet, train_family
from autometa.search.workbench import orient

TUNED_STAGES = 2
"""Last stages that are trained by classification."""
TURNS = 4
"""Orientations whose classes are told apart, too, where turned classes help."""
TRAINING_BYTES, STORAGE_SHARE = 600 * 2**20, 0.4
"""Memory that must be there; share of it that activations may take, more of them go to the disk."""

State = dict[str, torch.Tensor]
"""Weights by name."""


@dataclass
class CopyTraining:
    """Trains on the images at `rows` of a pool for tests of the form `episodes`, on a device, within `memory`,
    `most_steps` steps at most by classification. `report` gets a line for each copy, and `step_memory` says what
    steps of the latest one took. `weights`: what a copy starts from, in place of the pretrained weights."""

    pool: ImagePool
    rows: Rows
    episodes: EpisodeSpec
    memory: MemoryBudget
    device: str
    most_steps: int
    report: Callable[[str], None]
    weights: State | None = None
    step_memory: StepRecord | None = field(default=None, init=False)
    _prepared: dict[int, PreparedImages] = field(default_factory=dict, init=False)

    def train(self, view: View, budget: TimeBudget, *, turned: bool) -> State:
        """The weights of what the variant of a view names, trained at the size of the view. `turned`: turned images
        are further classes to tell apart. BudgetExhausted where time or memory is too short; ConfigError where the
        network cannot be split; errors of the training as they come."""
        self.step_memory = None
        if not self.memory.fits(TRAINING_BYTES):
            raise BudgetExhausted(f"too little memory is left to train {view}")
        if view.variant == TUNED:
            return self._classify_as_deep_as_fits(view, budget, turned=turned)
        return self._train_family(view, budget)

    def _classify_as_deep_as_fits(self, view: View, budget: TimeBudget, *, turned: bool) -> State:
        """Of the last stages as many as are predicted to have room."""
        for stages in range(TUNED_STAGES, 1, -1):
            try:
                return self._classify(view, budget, stages, turned=turned)
            except TooLittleMemory as error:
                self.report(f"{view}: fewer stages are tuned: {error}")
        return self._classify(view, budget, 1, turned=turned)

    def _classify(self, view: View, budget: TimeBudget, stages: int, *, turned: bool) -> State:
        spec = EncoderSpec(network=view.backbone, px=view.px, trainable=stages)
        encoder = TailEncoder(build_backbone(view.backbone, "cpu", self.weights), spec).to(self.device)
        turns = TURNS if turned and self._can_turn(encoder, budget) else 1
        labels = self.pool.labels[self.rows]
        numbered = torch.from_numpy(np.concatenate([labels + self.pool.classes * n for n in range(turns)]))
        tuned = tune_tail(encoder, self._images(turns), numbered, budget, self.most_steps, self.memory)
        self.step_memory = tuned.memory
        self.report(
            f"trained {view}: {tuned.steps} steps in {tuned.train_s:.1f} s, after {tuned.prepare_s:.1f} s for "
            f"{len(numbered)} images of {len(set(numbered.tolist()))} classes"
        )
        return tuned.state

    def _can_turn(self, encoder: TailEncoder, budget: TimeBudget) -> bool:
        """Whether there is time to prepare the images in all orientations, and memory for them, twice while they are
        put together."""
        n_images = TURNS * len(self.rows)
        if not self.memory.fits(TRAINING_BYTES + 2 * n_images * self.pool.images[:1].nbytes):
            return False
        return (
            n_images * self._images(1).image_s(encoder, budget) <= POLICY.tune_prepare_share * budget.left_s()
        )

    def _train_family(self, view: View, budget: TimeBudget) -> State:
        recipe = find_family(view.variant).recipe(view.backbone, view.px, self.episodes)
        training_set = TrainingSet(
            self._images(1),
            self.pool.labels[self.rows],
            self.pool.dataset_of_class,
            self.episodes,
            self.device,
            self.memory,
        )
        learner = train_family(recipe, training_set, budget, report=self.report, weights=self.weights)
        self.step_memory = learner.memory
        state = learner.learner.encoder.backbone_state()
        assert state is not None, f"{view.variant} trains no backbone"
        return state

    def _images(self, turns: int) -> PreparedImages:
        """The images in so many orientations; kept, since learners with the same trunk share what they prepare."""
        if turns not in self._prepared:
            self._prepared.clear()  # there may be room for one only
            images = self.pool.images[self.rows]
            seen = np.concatenate([orient(images, n) for n in range(turns)]) if turns > 1 else images
            storage = Storage(STORAGE_SHARE * self.memory.left_bytes())
            self._prepared[turns] = PreparedImages(seen, storage)
        return self._prepared[turns]
