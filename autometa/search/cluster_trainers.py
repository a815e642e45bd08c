"""Who trains copies of backbones: the machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autometa.backbones.embedders import EmbedOnCluster
from autometa.backbones.embedding_parts import State
from autometa.core.errors import describe
from autometa.executors.ray_cluster import RayExecutor
from autometa.search.copy_orders import CopyOrder, TrainedCopy, train_copy


class TrainOnCluster(RayExecutor[CopyOrder, TrainedCopy]):
    """Trains copies on a cluster, in places that `embedders` lend, and on the images that they hold; one place is
    left to them. `train` does an order there."""

    def __init__(self, embedders: EmbedOnCluster, train: Callable[..., TrainedCopy] = train_copy) -> None:
        super().__init__(embedders.ray, embedders.needs, embedders.show)
        self._embedders, self._train = embedders, train
        self._states: dict[str, Any] = {}

    @property
    def function(self) -> Callable[..., TrainedCopy]:
        """Trains a copy."""
        return self._train

    def capacity(self) -> int:
        """All places but one; none where the images did not fit into the store of objects."""
        return max(super().capacity() - 1, 0) if self._embedders.held is not None else 0

    def give(self, backbone: str, state: Callable[[], State]) -> None:
        """Put the weights into the store, once."""
        if backbone not in self._states:
            self._states[backbone] = self.put(dict(state()))

    def submit(self, unit: CopyOrder) -> None:
        """Have it trained in a place of the embedders."""
        super().submit(unit)
        self._embedders.lent += 1

    def arguments(self, unit: CopyOrder) -> tuple[Any, ...]:
        """The order, weights, images, and what it gets of the machine."""
        state, images = self._states[unit.view.backbone], self._embedders.held
        return unit, state, images, self.needs.cpus, self.needs.memory_bytes

    def take(self, unit: CopyOrder, came: TrainedCopy) -> TrainedCopy:
        """As it came; its place is given back."""
        self._embedders.lent -= 1
        return came

    def lost(self, unit: CopyOrder, reason: str) -> TrainedCopy:
        """A copy without weights."""
        return self.take(unit, TrainedCopy(unit.view, reason=reason))

    def raised(self, unit: CopyOrder, error: Exception | None) -> TrainedCopy:
        """A copy without weights."""
        return self.lost(unit, describe(error) if error else "it failed there")

    def cancel(self) -> None:
        """End the trainings that go on; their places are given back."""
        super().cancel()
        self._embedders.lent = 0

    def close(self) -> None:
        """End the trainings; the cluster is the embedders'."""
        self.cancel()
