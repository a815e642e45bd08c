"""Peaks of memory of training steps, predicted by two tiny ones before training begins, corrected by a real one.

A step takes gradients and the optimizer's state, as large as what is trained, and for every image what its graph
keeps: that follows from the network, the size of the images, the trained depth, the precision and the learner, so it
is counted, not modelled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch

from autometa.core.budget import MemoryBudget
from autometa.core.errors import TooLittleMemory
from autometa.core.machine import CPU, free_bytes, starts_cold
from autometa.core.tensor_memory import measure_growth, measure_peak
from autometa.learners.base import EpisodicLearner
from autometa.learners.episodes import EpisodeSource, InputEpisodes, PoolSource

STATES = {"adam": 2, "sgd": 0, "momentum": 1}
"""Tensors as large as what is trained that an optimizer keeps; `momentum` is `sgd` with it."""
SCRATCH, LIBRARY_BYTES = 1.4, 32 * 2**20
"""On a CPU: bytes of kernels and of what is between blocks, for each byte of a tensor of a step, and bytes that
libraries take for their first steps. By `benchmarks/training_memory.py`, with Conv-4."""
LEAST_RATIO, MOST_RATIO = 1.0, 2.5
"""Bounds of what a real step corrects a prediction by: tensors take what they take, and a step that took much more
has seen something else."""
FEW_WAYS = (2, 3)
"""Ways of the episodes of the tiny steps."""
GPU_SHARE = 0.9
"""Of the free memory of a GPU: its allocator loses some between blocks."""
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
    def of_two_steps(
        cls, few: tuple[int, int], more: tuple[int, int], held_bytes: int, device: str
    ) -> TrainingMemory:
        """From two small steps on a device: how many images each has at once, and the bytes of its tensors at the
        peak where gradients are there already."""
        image = max(more[1] - few[1], 0) / (more[0] - few[0]) or more[1] / more[0]
        fixed = max(few[1] - few[0] * image, 0.0)
        if device != CPU:
            return cls(held_bytes, fixed, image)
        return cls(held_bytes + LIBRARY_BYTES, fixed, image, SCRATCH)

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
class StepRecord:
    """What training steps were predicted to take, beside `weights_bytes`, and what one took (None: not measured)."""

    weights_bytes: int
    predicted_bytes: int
    measured_bytes: int | None = None

    def __str__(self) -> str:
        """One line for people."""
        took = (
            "not measured" if self.measured_bytes is None else f"{self.measured_bytes / MIB:.1f} MiB measured"
        )
        return (
            f"memory of a training step: {self.predicted_bytes / MIB:.1f} MiB predicted, {took}, beside "
            f"{self.weights_bytes / MIB:.1f} MiB of weights"
        )


class Stepping(Protocol):
    """What of a training's settings its memory depends on."""

    @property
    def optimizer(self) -> Literal["adam", "sgd"]:
        """Of `STATES`."""
        ...

    @property
    def momentum(self) -> float:
        """Of `sgd`; 0 without."""
        ...

    @property
    def meta_batch(self) -> int:
        """Episodes a step."""
        ...


@dataclass
class StepMemory:
    """Keeps the steps of a training of what is `trained` within `memory` (None: nothing is planned), on a GPU within
    what is free there: `plan` before the first step, and `watch` every one. `record`: what it has to tell."""

    learner: EpisodicLearner
    trained: list[torch.nn.Parameter]
    settings: Stepping
    device: str
    memory: MemoryBudget | None
    record: StepRecord | None = field(default=None, init=False)
    predicted: TrainingMemory | None = field(default=None, init=False)
    _room: float = field(default=0.0, init=False)

    @property
    def _kind(self) -> str:
        """Of `STATES`."""
        return "momentum" if self.settings.momentum else self.settings.optimizer

    def plan(self, source: EpisodeSource) -> None:
        """Predict what a step on the largest episodes takes, from two tiny ones, and take as many episodes at once as
        have room. TooLittleMemory where not even one has. Nothing is known of a source that is no pool. The state of
        the learner changes."""
        if self.memory is None or not isinstance(source, PoolSource) or not self.trained:
            return
        self.learner.train()
        if starts_cold(self.device):  # what only the first step of a process takes is no part of later ones
            self._measure_alone(blank_episode(source, FEW_WAYS[0]))
        few, more = (self._measure_alone(blank_episode(source, ways)) for ways in FEW_WAYS)
        held = held_bytes(self.trained, self._kind)
        self.predicted = TrainingMemory.of_two_steps(few, more, held, self.device)
        self._room = room_bytes(self.device, self.memory)
        ways, *per_class = source.sampler.largest()
        images = ways * sum(per_class)
        if self._limit(images) < 1:
            raise TooLittleMemory(
                f"a training step on one episode of {images} images takes "
                f"{self.predicted.peak_bytes(images) / MIB:.0f} MiB, {max(self._room, 0) / MIB:.0f} MiB are left"
            )
        self._tell(images)

    def watch(self, episodes: InputEpisodes) -> float:
        """Add the gradients of a step; the loss. What the first one takes corrects the prediction."""
        if self.predicted is None or (self.record and self.record.measured_bytes is not None):
            return self.learner.accumulate(episodes)
        losses: list[float] = []
        images, states = count_images(episodes), STATES[self._kind] * count_bytes(self.trained)
        took = measure_growth(lambda: losses.append(self.learner.accumulate(episodes)), self.device) + states
        at_once = self._tell(images, took)
        self.predicted = self.predicted.corrected(at_once, took)
        self._limit(images)
        return losses[0]

    def _measure_alone(self, episodes: InputEpisodes) -> tuple[int, int]:
        """Images of one episode, and bytes of its step."""
        for parameter in self.trained:
            parameter.grad = torch.zeros_like(parameter)
        on_device = episodes.to(self.device)
        peak = measure_peak(lambda: self.learner.accumulate_alone(on_device), self.device)
        return count_images(episodes), peak

    def _limit(self, images: int) -> int:
        """Take as many episodes of so many images at once as have room, at least one; how many have."""
        assert self.predicted is not None
        most = self.predicted.count_fitting(self._room) // images
        if most < self.settings.meta_batch:
            self.learner.limit_at_once(max(most, 1), self.settings.meta_batch)
        return most

    def _tell(self, images: int, measured: int | None = None) -> int:
        """Record what a step on episodes of so many images is predicted to take, and what it took; the images that
        are in memory at once."""
        assert self.predicted is not None
        at_once = images * self.learner.count_at_once(self.settings.meta_batch)
        weights = count_bytes(self.learner.parameters())
        self.record = StepRecord(weights, self.predicted.peak_bytes(at_once), measured)
        return at_once


def blank_episode(source: PoolSource, ways: int) -> InputEpisodes:
    """One episode of so many ways, otherwise of the largest ones of a source, whose images are black."""
    _, shots, queries, spare = source.sampler.largest()

    def black(per_class: int) -> torch.Tensor:
        return source.inputs.new_zeros(1, ways * per_class, *source.inputs.shape[1:])

    def labels(per_class: int) -> torch.Tensor:
        return torch.arange(ways).repeat_interleave(per_class)[None]

    return InputEpisodes(
        black(shots),
        labels(shots),
        black(queries),
        labels(queries),
        torch.tensor([ways]),
        black(spare) if spare else None,
        torch.arange(ways)[None] % source.classes,
    )


def count_images(episodes: InputEpisodes) -> int:
    """Images of one episode of a batch, with padding."""
    spare = 0 if episodes.unlabelled is None else episodes.unlabelled.shape[1]
    return episodes.support_labels.shape[1] + episodes.query_labels.shape[1] + spare


def count_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of all tensors."""
    return sum(tensor.nbytes for tensor in tensors)


def held_bytes(trained: Iterable[torch.Tensor], optimizer: str) -> int:
    """Of the gradients of what is trained and of the state of an optimizer of `STATES`."""
    return (1 + STATES[optimizer]) * count_bytes(trained)


def room_bytes(device: str, memory: MemoryBudget) -> float:
    """Bytes that are free for training on a device."""
    free = free_bytes(device)
    return memory.left_bytes() if free is None else GPU_SHARE * free
