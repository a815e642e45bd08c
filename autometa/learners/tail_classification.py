"""The last stages of a backbone tuned by plain classification of the meta-train classes (MetaDelta, Chen et al.
2021): the result is a backbone like any other, to be tried beside the untouched one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from autometa.core.budget import MemoryBudget, TimeBudget, stopwatch
from autometa.core.chunks import in_chunks
from autometa.core.errors import BudgetExhausted, TooLittleMemory
from autometa.core.machine import starts_cold
from autometa.core.tensor_memory import measure_growth, measure_peak
from autometa.core.time_policy import POLICY
from autometa.learners.base import accumulate_in_parts
from autometa.learners.encoder import Encoder, TailEncoder, get_device
from autometa.learners.optimizers import AdamW
from autometa.learners.prepared import PreparedImages
from autometa.learners.training_memory import (
    MIB,
    STATES,
    StepRecord,
    TrainingMemory,
    count_bytes,
    held_bytes,
    room_bytes,
)

SEED, BATCH = 0, 64
RATE, DECAY, CLIP = 3e-4, 0.01, 5.0
WARM_UP = 20
"""Steps in which the rate rises to `RATE`; then it falls along a cosine over the time that there is."""
SCALE, SMOOTHING = 16.0, 0.1
"""Of the cosines that the classifier takes for logits, and of its labels."""
FEW, LEAST_PART = (2, 4), 4
"""Images of the steps from which memory is predicted, and that must be predicted to have room at once."""
FIRST_STEPS, LEAST_STEPS = 3, 30
"""Steps from which the time of the others is predicted, and fewer than which are not worth beginning."""


@dataclass(frozen=True)
class TunedBackbone:
    """Weights of the whole network after `steps`, what preparing and training took, in seconds, and what a step took
    of the memory, where that was planned."""

    state: dict[str, torch.Tensor]
    steps: int
    prepare_s: float
    train_s: float
    memory: StepRecord | None = None


def tune_tail(
    encoder: TailEncoder,
    images: PreparedImages,
    labels: torch.Tensor,
    budget: TimeBudget,
    most_steps: int,
    memory: MemoryBudget | None = None,
) -> TunedBackbone:
    """Train what an encoder trains of a pretrained backbone to tell apart the classes of images with labels int64
    [n], for `most_steps` or until the budget ends. BudgetExhausted where that is too soon. With a `memory` budget the
    gradients of a batch are computed in parts that are predicted to have room; TooLittleMemory, before images are
    prepared, where a few images have none. Parts that have none all the same become smaller; TooLittleMemory where
    not even one image has.

    Activations of the frozen stages are computed once per image. A cosine classifier starts at the class means,
    so the first steps do no harm; it is thrown away at the end. Activations of pairs of images are mixed, as
    their labels are (manifold mixup, Verma et al. 2019), without which the training images are memorised.
    """
    elapsed, device = stopwatch(budget.clock), get_device(encoder).type
    if memory is not None:
        probe = encoder.prepare(images.images[: FEW[1]])
        tiny = _TailTraining(encoder, probe, torch.zeros(len(probe), dtype=torch.long))
        predicted = tiny.predict()
        tiny.limit(predicted, room_bytes(device, memory))
    needed_s, left_s = images.image_s(encoder, budget) * len(images), budget.left_s()
    if needed_s > POLICY.tune_prepare_share * left_s:
        raise BudgetExhausted(
            f"{needed_s:.1f} s to prepare {len(images)} images for tuning, {left_s:.1f} s left"
        )
    inputs = images.inputs_for(encoder, budget)
    prepared_s = elapsed()
    training = _TailTraining(encoder, inputs, torch.unique(labels, return_inverse=True)[1])
    if memory is not None:
        training.limit(predicted, room_bytes(device, memory))
    steps = training.run(budget, most_steps)
    return TunedBackbone(encoder.backbone_state(), steps, prepared_s, elapsed() - prepared_s, training.record)


@dataclass(frozen=True)
class _Batch:
    """Inputs [b, ...] with labels [b], which are mixed, `share` of each, with those at `partners` [b]."""

    inputs: torch.Tensor
    labels: torch.Tensor
    partners: torch.Tensor
    share: float


class _TailTraining:
    """The loop over inputs [n, ...] with labels 0..c-1 [n]."""

    def __init__(self, encoder: Encoder, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self._encoder, self._inputs, self._labels = encoder, inputs, labels
        self._device, self._part = get_device(encoder), BATCH
        self._predicted: TrainingMemory | None = None
        self.record: StepRecord | None = None
        self._rng = np.random.default_rng(SEED)
        self._classifier = torch.nn.Parameter(self._compute_class_means())
        self._tail = [p for p in encoder.parameters() if p.requires_grad]
        self._optimizer = AdamW([*self._tail, self._classifier], lr=RATE, weight_decay=DECAY, foreach=True)

    def predict(self) -> TrainingMemory:
        """What steps take, from two tiny ones, without what they hold: gradients, the optimizer's state, a batch."""
        self._encoder.train()
        for parameter in (*self._tail, self._classifier):
            parameter.grad = torch.zeros_like(parameter)
        batch = self._draw(np.random.default_rng(SEED))

        def measure(n: int) -> tuple[int, int]:
            return n, measure_peak(lambda: self._accumulate(batch, slice(0, n)), self._device.type)

        if starts_cold(self._device.type):  # what only the first step takes is no part of later ones
            measure(FEW[0])
        few, more = (measure(n) for n in FEW)
        self._optimizer.zero_grad()
        return TrainingMemory.of_two_steps(few, more, 0, self._device.type)

    def limit(self, predicted: TrainingMemory, room: float) -> None:
        """Take as many images at once as have room. TooLittleMemory where few have none."""
        held = held_bytes([*self._tail, self._classifier], "adam") + self._batch_bytes
        self._predicted = replace(predicted, held_bytes=predicted.held_bytes + held)
        most = min(self._predicted.count_fitting(room), BATCH)
        if most < LEAST_PART:
            raise TooLittleMemory(
                f"tuning with {LEAST_PART} images at once takes "
                f"{self._predicted.peak_bytes(LEAST_PART) / MIB:.0f} MiB, {max(room, 0) / MIB:.0f} MiB are left"
            )
        self._part = -(-BATCH // -(-BATCH // most))
        self._tell()

    @property
    def _batch_bytes(self) -> int:
        """Of the inputs of a batch, float32."""
        return 4 * BATCH * self._inputs[0].numel()

    def _tell(self, measured: int | None = None) -> None:
        assert self._predicted is not None
        weights = count_bytes([*self._encoder.parameters(), self._classifier])
        self.record = StepRecord(weights, self._predicted.peak_bytes(self._part), measured)

    def run(self, budget: TimeBudget, most: int) -> int:
        """Steps until the budget ends, `most` of them; how many there were. BudgetExhausted where too few would
        fit."""
        whole_s = budget.left_s()
        step_s, steps = 0.0, 0
        self._encoder.train()
        while steps < most and budget.fits(step_s):
            elapsed = stopwatch(budget.clock)
            done = min(max(1 - budget.left_s() / whole_s, steps / most, 0.0), 1.0)
            warm = min((steps + 1) / WARM_UP, 1.0)
            self._step(RATE * warm * 0.5 * (1 + math.cos(math.pi * done)))
            step_s, steps = elapsed(), steps + 1
            if steps == 1 and starts_cold(self._device.type):
                step_s = 0.0  # which tells nothing of the next one
            if steps == FIRST_STEPS and step_s * LEAST_STEPS > budget.left_s():
                raise BudgetExhausted(
                    f"a step of tuning takes {step_s:.1f} s, {budget.left_s():.1f} s are left"
                )
        self._encoder.eval()
        return steps

    def _compute_class_means(self) -> torch.Tensor:
        """Normalised means of the normalised embeddings of each class, [c, d]."""
        self._encoder.eval()
        with torch.no_grad():
            inputs = self._inputs
            parts = in_chunks(
                lambda start, stop: self._embed(inputs[start:stop].to(self._device)), len(inputs), 4 * BATCH
            )
        features, labels = torch.cat(parts), self._labels.to(self._device)
        means = features.new_zeros(int(labels.max()) + 1, features.shape[1])
        return F.normalize(means.index_add_(0, labels, features), dim=1)

    def _embed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalised embeddings [n, d]."""
        return F.normalize(self._encoder(inputs).mean((2, 3)).float(), dim=1)

    def _step(self, rate: float) -> None:
        """One step at this rate, on a batch drawn at random and mixed with itself in another order."""
        batch = self._draw(self._rng)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()

        def accumulate() -> None:
            trained = [*self._tail, self._classifier]
            losses = accumulate_in_parts(
                lambda start, stop: self._accumulate(batch, slice(start, stop)),
                BATCH,
                self._part,
                trained,
                "image",
            )
            self._part = min(self._part, -(-BATCH // len(losses)))

        if self.record is None or self.record.measured_bytes is not None:
            accumulate()
        else:  # the first step
            held = STATES["adam"] * count_bytes([*self._tail, self._classifier]) + self._batch_bytes
            self._tell(measure_growth(accumulate, self._device.type) + held)
        torch.nn.utils.clip_grad_norm_(self._tail, CLIP)
        self._optimizer.step()

    def _draw(self, rng: np.random.Generator) -> _Batch:
        rows = torch.from_numpy(rng.choice(len(self._inputs), BATCH))
        share, partners = float(rng.uniform()), torch.from_numpy(rng.permutation(BATCH))
        inputs = self._inputs[rows].to(self._device).float()
        return _Batch(inputs, self._labels[rows].to(self._device), partners.to(self._device), share)

    def _accumulate(self, batch: _Batch, part: slice) -> float:
        """Add the gradients of a part of a batch; its part of the loss."""
        share, labels, partners = batch.share, batch.labels, batch.partners[part]
        embedded = self._embed(share * batch.inputs[part] + (1 - share) * batch.inputs[partners])
        logits = SCALE * embedded @ F.normalize(self._classifier, dim=1).T
        loss = share * F.cross_entropy(logits, labels[part], label_smoothing=SMOOTHING)
        loss = loss + (1 - share) * F.cross_entropy(logits, labels[partners], label_smoothing=SMOOTHING)
        weighted = loss * (len(partners) / BATCH)
        torch.autograd.backward(weighted)
        return float(weighted.detach())
