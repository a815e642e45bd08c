"""Peaks of memory of training steps, predicted from two tiny steps before training begins, and corrected by a real one.

A step takes gradients and the optimizer's state, as large as what is trained, and for every image what its graph
keeps: that follows from the network, the size of the images, the trained depth, the precision and the learner, so it
is counted, not modelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from autometa.core.tensor_memory import measure_peak

STATES = {"adam": 2, "sgd": 0}
"""Tensors as large as what is trained that an optimizer keeps."""
LEAST_RATIO, MOST_RATIO = 0.5, 2.0
"""Bounds of what a real step corrects a prediction by: beyond them it has seen something else."""
MIB = 2**20


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that training takes at its peak beside the weights: `held_bytes` for gradients and the optimizer, and for
    what is computed at once `fixed_bytes` and `image_bytes` for each of its images, times `ratio`."""

    held_bytes: int
    fixed_bytes: float
    image_bytes: float
    ratio: float = 1.0

    @classmethod
    def count(cls, step: Callable[[int], object], sizes: tuple[int, int], held_bytes: int, device: str) -> TrainingMemory:
        """From two small steps, which `step` makes with so many images at once."""
        few, more = sizes
        low, high = (measure_peak(lambda n=n: step(n), device) for n in sizes)  # type: ignore[misc]
        image = max(high - low, 0) / (more - few) or high / more
        return cls(held_bytes, max(low - few * image, 0.0), image)

    def peak_bytes(self, images: int) -> int:
        """Of training with so many images at once."""
        return int(self.held_bytes + self.ratio * (self.fixed_bytes + images * self.image_bytes))

    def count_fitting(self, room_bytes: float) -> int:
        """How many images at once so much room is enough for; 0 where not even one fits."""
        left = (room_bytes - self.held_bytes) / self.ratio - self.fixed_bytes
        return max(int(left // max(self.image_bytes, 1.0)), 0)

    def corrected(self, images: int, measured_bytes: int) -> TrainingMemory:
        """The same after a step with so many images at once took so much."""
        predicted = self.fixed_bytes + images * self.image_bytes
        ratio = (measured_bytes - self.held_bytes) / max(predicted, 1.0)
        return replace(self, ratio=min(max(ratio, LEAST_RATIO), MOST_RATIO))


@dataclass(frozen=True)
class MemoryOfTraining:
    """What a training was predicted to take, beside `weights_bytes`, and what it took (None: not measured)."""

    weights_bytes: int
    predicted_bytes: int
    measured_bytes: int | None = None

    def __str__(self) -> str:
        measured = "not measured" if self.measured_bytes is None else f"{self.measured_bytes / MIB:.0f} MiB measured"
        return (
            f"memory of a training step: {self.predicted_bytes / MIB:.0f} MiB predicted, {measured}, beside "
            f"{self.weights_bytes / MIB:.0f} MiB of weights"
        )
