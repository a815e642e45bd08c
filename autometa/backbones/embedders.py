"""Who embeds parts of images: the machines of a Ray cluster."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autometa.backbones.embedding_parts import MOST_HELD, Embedded, Part, Pass, State, embed_part, start_up
from autometa.core.errors import ConfigError, describe
from autometa.executors.ray_cluster import Needs, RayExecutor, connect, is_usable, least_of

MOST_CPUS = 4
"""Processors of a process that embeds, at most: with more, two processes are faster than one."""
LEAST_BYTES = 10**9
"""Memory of a process that embeds."""


class EmbedOnCluster(RayExecutor[Part, Embedded]):
    """Embeds parts on the machines of a cluster. Weights and the images that are held travel once to a machine;
    `embed` does a part there. `lent`: places that other work has."""

    def __init__(
        self, ray: Any, needs: Needs, show: Callable[[str], None], embed: Callable[..., Embedded] = embed_part
    ) -> None:
        super().__init__(ray, needs, show)
        self._embed = embed
        self._states: OrderedDict[str, Any] = OrderedDict()
        self._known: set[Pass] = set()
        self._held: Any = None
        self._images = np.empty((0, 3, 1, 1), np.uint8)
        self._warming: list[Any] = []
        self.lent = 0

    @property
    def held(self) -> Any:
        """A reference to the images that every machine is given; None where there are none."""
        return self._held

    def capacity(self) -> int:
        """Without the places that are `lent` to other work."""
        return max(super().capacity() - self.lent, 0)

    @property
    def function(self) -> Callable[..., Embedded]:
        """Does a part."""
        return self._embed

    def hold(self, images: NDArray[np.uint8]) -> None:
        """Put them into the store of objects, from which they are read in place."""
        self._held = self.put(np.ascontiguousarray(images))

    def give(self, own: Pass, state: Callable[[], State], images: NDArray[np.uint8]) -> None:
        """Put the weights into the store, unless they are there."""
        if own.digest not in self._states:
            while len(self._states) >= MOST_HELD:
                self._states.popitem(last=False)
            self._states[own.digest] = self.put(dict(state()))
        self._states.move_to_end(own.digest)
        self._images = images

    def knows(self, own: Pass) -> bool:
        """Whether a part of it has come, and its weights are still there."""
        return own in self._known and own.digest in self._states

    def arguments(self, unit: Part) -> tuple[Any, ...]:
        """The part, weights, images (those held, or its own), and threads for the processors that it gets."""
        images = self._held if unit.held else self._images[unit.rows]
        return unit, self._states[unit.own.digest], images, self.needs.cpus

    def take(self, unit: Part, came: Embedded) -> Embedded:
        """As it came."""
        self._known.add(unit.own)
        return came

    def lost(self, unit: Part, reason: str) -> Embedded:
        """A part without features."""
        return Embedded(unit.number, reason=reason)

    def raised(self, unit: Part, error: Exception | None) -> Embedded:
        """A part without features."""
        return Embedded(unit.number, reason=describe(error) if error else "it failed there")

    def warm_up(self) -> None:
        """Have processes start and import what embedding needs, while this one does something else."""
        task = self.ray.remote(start_up).options(**self.needs.options())
        self._warming = [task.remote(self.needs.cpus) for _ in range(self.capacity())]


def needs_of_parts(ray: Any, device: str) -> Needs:
    """What each process gets that embeds: an equal share of the smallest machine, with up to four processors; or a
    GPU where this one has a GPU (`device`). ConfigError where no machine has enough."""
    alive = [node for node in ray.nodes() if is_usable(node, None) and node["Resources"].get("CPU", 0) >= 1]
    least = least_of(alive) if alive else {"CPU": 0.0, "memory": 0.0, "GPU": 0.0}
    gpus = device == "cuda"
    jobs = max(int(least["GPU"]) if gpus else -(-int(least["CPU"]) // MOST_CPUS), 1)
    needs = Needs(int(least["CPU"] // jobs), int(least["memory"] // jobs), float(gpus))
    if needs.cpus < 1 or needs.memory_bytes < LEAST_BYTES or (gpus and least["GPU"] < 1):
        wanted = f"a processor, {LEAST_BYTES / 1e9:.0f} GB of memory" + (" and a GPU" if gpus else "")
        raise ConfigError(
            f"--ray: each machine needs {wanted}; the least are {least['CPU']:.0f} processors, "
            f"{least['memory'] / 1e9:.1f} GB and {least['GPU']:.0f} GPUs; end small machines with `ray stop`"
        )
    return needs


def join_cluster(address: str, device: str, show: Callable[[str], None]) -> EmbedOnCluster:
    """The machines of the Ray cluster at this address, for networks on `device`. ConfigError where none answers there
    or it has no room."""
    ray = connect(address)
    try:
        found = EmbedOnCluster(ray, needs_of_parts(ray, device), show)
    except ConfigError:
        ray.shutdown()
        raise
    found.warm_up()
    return found
