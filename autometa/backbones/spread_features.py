"""Features of many images from other processes or machines, part by part, within what time is left.

The process that asks keeps the plan: it says which images, waits no longer than its budget allows, and takes what
comes. A part that nobody could do is done here. So nothing depends on where a part was done: the same engine, weights
and batches give the same features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones.build import Backbone
from autometa.backbones.embedding_parts import Embedded, Part, Pass, State, state_of
from autometa.backbones.view import Source
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.errors import BudgetExhausted, ConfigError, describe
from autometa.executors.executor import Executor

SETUP_S = 10.0
"""Seconds until the first part of a network comes back, beside its own, until one has: processes start, import, and
build the network."""
TRAVEL_S = 0.5
"""Seconds between the end of a part there and its arrival, until one has come."""
PART_S = 1.0
"""Seconds of a part, about: longer ones are lost more dearly, shorter ones travel more often."""
LOOK_S = 1.0
"""Between two looks at whether anybody is left."""

Rows = Sequence[int]


@dataclass(frozen=True)
class Work:
    """A pass of a network over many images: what an image takes here, `image_s`, and how many are embedded at a
    time."""

    own: Pass
    image_s: float
    batch: int


class Embedders(Executor[Part, Embedded], Protocol):
    """An executor of parts, and what they have in common."""

    def hold(self, images: NDArray[np.uint8]) -> None:
        """Give every process these images uint8 [n, 3, h, w], once; earlier ones are forgotten."""

    def give(self, own: Pass, state: Callable[[], State], images: NDArray[np.uint8]) -> None:
        """What the next parts are of: a network, whose weights `state` gives, and images, whose rows travel where
        they are not those held."""

    def knows(self, own: Pass) -> bool:
        """Whether parts of this pass were done before, so that its network is likely to be built."""


@dataclass
class SpreadFeatures:
    """Has images embedded by `workers`; `report` gets a line where one cannot do its part."""

    workers: Embedders
    report: Callable[[str], None] = print
    setup_s: float = field(default=SETUP_S, init=False)
    """Seconds until the first part of a network that was not built there comes back, beside its own, as measured
    last."""
    travel_s: float = field(default=TRAVEL_S, init=False)
    """Reserve for collecting a result, as measured last."""
    image_s: dict[Source, float] = field(default_factory=dict, init=False)
    """What an image takes here, as stores of features have measured it."""
    _held: NDArray[np.uint8] | None = field(default=None, init=False)
    _each: float = field(default=1.0, init=False)
    """How many times as fast as here images are embedded in one place there, as measured last."""
    _refused: set[Pass] = field(default_factory=set, init=False)

    def hold(self, images: NDArray[np.uint8]) -> None:
        """These images uint8 [n, 3, h, w] will be embedded again and again: they travel once."""
        try:
            self.workers.hold(images)
        except ConfigError as error:  # then images travel with their parts
            self.report(describe(error))
        else:
            self._held = images

    @property
    def gain(self) -> float:
        """How many times as fast images are embedded there as here, now; machines come and go."""
        return max(self._each * self.workers.capacity(), 1.0)

    def predict_s(self, images: int, image_s: float) -> float:
        """Seconds for so many images, each of which takes `image_s` here: there or here, whatever is less."""
        here_s = images * image_s
        return min(here_s, self.setup_s + here_s / self.gain)

    def pays(self, own: Pass, images: int, image_s: float) -> bool:
        """Whether so many images of a pass would be there sooner than here."""
        if own in self._refused or not self.workers.capacity():
            return False
        setup_s = self.travel_s if self.workers.knows(own) else self.setup_s
        return setup_s + images * image_s / self.gain < images * image_s

    def embed(
        self, backbone: Backbone, work: Work, images: NDArray[np.uint8], rows: Rows, budget: TimeBudget
    ) -> Iterator[tuple[Rows, torch.Tensor]]:
        """Some of `rows` of images uint8 [n, 3, h, w], and all layers of them, float32 [m, d], as they come; those
        that never come are to be embedded here. BudgetExhausted where `budget` ends first."""
        own, new = work.own, not self.workers.knows(work.own)
        left = self._split(work, rows, held=images is self._held)
        elapsed, there_s, n_images = stopwatch(), 0.0, 0
        try:
            self.workers.give(own, partial(state_of, backbone), images)
            for part in left.values():
                self.workers.submit(part)
            while left:
                came = self._wait(budget, own)
                if came is None or came.features is None:
                    self._give_up(own, came.reason if came else None)
                    return
                if not n_images:
                    self._measure_first(elapsed(), came, new=new)
                there_s, n_images = there_s + came.seconds, n_images + len(came.features)
                self._each = n_images * work.image_s / max(there_s, 1e-9)
                yield left.pop(came.number).rows.tolist(), torch.from_numpy(np.array(came.features))
        except ConfigError as error:
            self._give_up(own, describe(error))
        finally:
            if left:
                self.workers.cancel()

    def _split(self, work: Work, rows: Rows, *, held: bool) -> dict[int, Part]:
        """Parts of whole batches, two or more for each place, by their numbers."""
        places, batch = max(self.workers.capacity(), 1), work.batch
        batches = min(PART_S / max(work.image_s * batch, 1e-9), len(rows) / batch / (2 * places))
        step = max(int(batches), 1) * batch
        chunks = [np.asarray(rows[start : start + step], np.int64) for start in range(0, len(rows), step)]
        return {number: Part(number, work.own, chunk, batch, held) for number, chunk in enumerate(chunks)}

    def _wait(self, budget: TimeBudget, own: Pass) -> Embedded | None:
        """What ends next; None where nobody is left. BudgetExhausted where there is no time to wait."""
        while True:
            left_s = budget.left_s() - self.travel_s
            if left_s <= 0:
                raise BudgetExhausted(f"embedding with {own.spec.name}@{own.px} elsewhere: no time is left")
            try:
                return self.workers.wait(min(left_s, LOOK_S))
            except TimeoutError:
                if not self.workers.capacity():
                    return None

    def _measure_first(self, seconds: float, came: Embedded, *, new: bool) -> None:
        """The first result has come: what its travel took and, of a `new` network, building it. Before that a process
        may have started, which counts as neither, as it runs now."""
        travel_s = max(seconds - came.whole_s, 0.0)
        self.travel_s = min(travel_s, self.travel_s if new else self.setup_s)
        if new:
            self.setup_s = max(came.whole_s - came.seconds, 0.0) + self.travel_s

    def _give_up(self, own: Pass, reason: str | None) -> None:
        """The rest of a pass is done here, and all of it from now on where somebody could not do it for a reason."""
        if reason is None:
            self.report(f"no machine is left: {own.spec.name}@{own.px} is embedded here")
            return
        self._refused.add(own)
        self.report(f"{own.spec.name}@{own.px} is embedded here: {reason}")
