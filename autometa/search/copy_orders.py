"""Copies of backbones that other processes train, while this one buys other things.

The search keeps the plan: it says what is trained and for how long, and what comes is a purchase like any other. What
never comes, or comes too late, costs nothing but a reserve of time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import CATALOGUE, BackboneSpec, View, build_backbone
from autometa.backbones.embedding_parts import VERSIONS, State, compare_versions, start_up, state_of
from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.errors import FAILURES, ConfigError, LostTraining, WeightsError, describe
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool, Rows
from autometa.executors.executor import Executor
from autometa.learners.training_memory import StepRecord
from autometa.search.copy_training import CopyTraining


@dataclass(frozen=True)
class TrainedOn:
    """What all copies of a search are trained on: `rows` of the images that every process was given, int64 `labels`
    of all of them, the dataset of each class, and the form of the test's episodes."""

    rows: Rows
    labels: Rows
    dataset_of_class: Rows
    datasets: tuple[str, ...]
    episodes: EpisodeSpec
    device: str
    most_steps: int


@dataclass(frozen=True)
class CopyOrder:
    """A copy to train elsewhere, for so many seconds at most. `versions`: of who asks."""

    view: View
    spec: BackboneSpec
    seconds: float
    turned: bool
    on: TrainedOn
    versions: tuple[tuple[str, str], ...] = VERSIONS

    def __str__(self) -> str:
        return f"training of {self.view}"


@dataclass(frozen=True)
class TrainedCopy:
    """What came of an order: weights, or None and the reason; what the training told, and what its steps took."""

    view: View
    state: State | None = None
    lines: tuple[str, ...] = ()
    step_memory: StepRecord | None = None
    reason: str = ""

    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights of a copy that was trained."""
        return {name: torch.from_numpy(np.array(value)) for name, value in (self.state or {}).items()}


class Trainers(Executor[CopyOrder, TrainedCopy], Protocol):
    """An executor of orders. Its capacity leaves a place for whoever embeds."""

    def give(self, backbone: str, state: Callable[[], State]) -> None:
        """The weights that copies of a network start from."""


def train_copy(
    order: CopyOrder, state: State, images: NDArray[np.uint8], threads: int, n_bytes: int
) -> TrainedCopy:
    """Train a copy from these weights on images uint8 [n, 3, h, w], in so many threads and bytes of memory. A failure
    is a result with its reason."""
    if differs := compare_versions(order.versions):
        return TrainedCopy(order.view, reason=differs)
    start_up(threads)
    CATALOGUE.setdefault(order.spec.name, order.spec)  # whoever asks may have networks of its own
    on, lines = order.on, list[str]()
    weights = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    memory = MemoryBudget(min(n_bytes, MemoryBudget.of_machine().total_bytes))
    pool = ImagePool(images, on.labels, on.dataset_of_class, on.datasets)
    training = CopyTraining(
        pool, on.rows, on.episodes, memory, on.device, on.most_steps, lines.append, weights
    )
    try:
        trained = training.train(order.view, TimeBudget.of(order.seconds), turned=order.turned)
    except FAILURES as error:
        return TrainedCopy(order.view, lines=tuple(lines), reason=describe(error))
    arrays = {name: value.cpu().numpy() for name, value in trained.items()}
    return TrainedCopy(order.view, arrays, tuple(lines), training.step_memory)


@dataclass
class CopyOrders:
    """The orders of one search. `report` hears what trainings told, and why nobody trains any more."""

    trainers: Trainers
    on: TrainedOn
    report: Callable[[str], None]
    open: dict[View, float] = field(default_factory=dict, init=False)
    """Copies that are being trained, and the seconds that are reserved for taking each of them in."""
    ended: bool = field(default=False, init=False)
    """Whether nothing is ordered any more."""
    _came: dict[View, TrainedCopy] = field(default_factory=dict, init=False)

    @property
    def places(self) -> int:
        """How many more trainings could begin now."""
        return 0 if self.ended else max(self.trainers.capacity() - len(self.open), 0)

    @property
    def reserved_s(self) -> float:
        """Seconds to take in all that is on its way."""
        return sum(self.open.values())

    def send(self, order: CopyOrder, take_in_s: float) -> None:
        """Have a copy trained, or end all orders where the cluster takes nothing more or the network has no weights
        here."""
        name = order.view.backbone  # those on the shelf may be rounded
        try:
            self.trainers.give(name, lambda: state_of(build_backbone(name, "cpu")))
            self.trainers.submit(order)
        except (ConfigError, WeightsError) as error:
            self._give_up(error)
            return
        self.open[order.view] = take_in_s
        self.report(f"{order}: elsewhere, for {order.seconds:.0f} s")

    def arrived(self, timeout_s: float = 0.0) -> View | None:
        """What has come by now, or within so many seconds; None where nothing has."""
        if not self.open:
            return None
        try:
            copy = self.trainers.wait(timeout_s)
        except TimeoutError:
            return None
        except ConfigError as error:
            self._give_up(error)
            return None
        del self.open[copy.view]
        self._came[copy.view] = copy
        for line in copy.lines:
            self.report(f"elsewhere: {line}")
        return copy.view

    def _give_up(self, error: Exception) -> None:
        self.report(f"copies are trained here: {describe(error)}")
        self.ended = True
        self.cancel()

    def take(self, view: View) -> TrainedCopy | None:
        """A copy that has come, once; None where this one was not ordered. LostTraining where nothing came of it."""
        copy = self._came.pop(view, None)
        if copy is not None and copy.state is None:
            raise LostTraining(f"{view} was not trained elsewhere: {copy.reason}")
        return copy

    def cancel(self) -> None:
        """End what is left."""
        if self.open:
            self.report(f"not waited for: {', '.join(map(str, self.open))}")
            self.trainers.cancel()
            self.open.clear()
