"""How many tasks a GPU takes at once, by what one of them was measured to take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class TaskMemory:
    """Bytes that the gradients of tasks taken at once need at the peak: `fixed_bytes`, and `image_bytes` for every
    image of every task."""

    fixed_bytes: float
    image_bytes: float

    @classmethod
    def measure(cls, peak_of: Callable[[int], int], images: int) -> TaskMemory:
        """From the peaks of one and of two tasks of so many images each, as `peak_of` measures them."""
        one, two = peak_of(1), peak_of(2)
        task = max(two - one, 0) or one
        return cls(max(one - task, 0), task / max(images, 1))

    def peak_bytes(self, tasks: int, images: int) -> float:
        """Of so many tasks at once, of so many images each."""
        return self.fixed_bytes + tasks * images * self.image_bytes

    def count_fitting(self, tasks: int, images: int, room_bytes: float, most_times: float = math.inf) -> int:
        """How many of the tasks, of so many images each, to take at once: as many as have room, and take no more
        than `most_times` the memory of one; at least one."""
        room = min(room_bytes, most_times * self.peak_bytes(1, images)) - self.fixed_bytes
        task = images * self.image_bytes
        if room >= tasks * task:
            return tasks
        return max(int(room / task + 1e-9), 1)
