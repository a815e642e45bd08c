"""How long a learner takes, as those who use it feel it: to adapt, for one image, for a batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.core.budget import stopwatch
from autometa.core.errors import DataError
from autometa.model.load import load_learner

Images = NDArray[np.uint8]
WARM_UPS = 3
"""Calls that are not counted."""
REPEATS, FEWER = 40, 8
"""Calls for one image that are counted; of what takes longer, one in `FEWER` of them."""
_CALLS = itertools.count(1)


class Predicts(Protocol):
    """A learner with a support set."""

    def predict(self, images: Images) -> NDArray[np.float64]: ...


class Adapts(Protocol):
    """A learner of any kind, or what behaves as one."""

    def fit(self, images: Images, labels: NDArray[np.int64], ways: int) -> Predicts: ...


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one kind of call: percentiles over the warm calls, and the first call."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    cold_ms: float

    @classmethod
    def of(cls, cold_s: float, warm_s: Sequence[float]) -> Timing:
        """Of seconds."""
        p50, p95, p99 = (float(1000 * each) for each in np.percentile(warm_s, [50, 95, 99]))
        return cls(p50, p95, p99, 1000 * cold_s)


@dataclass(frozen=True)
class Latency:
    """What was measured: `adapt` from a support set to a predictor, `predict` one image and `batch` of `batch_images`
    images with it. `px`: size of the images. `ways` classes had `support_images` images together. `threads` of
    PyTorch; engines use all cores of the process."""

    adapt: Timing
    predict: Timing
    batch: Timing
    px: int
    ways: int
    support_images: int
    batch_images: int
    repeats: int
    threads: int

    def to_json(self) -> dict[str, Any]:
        """As plain values, milliseconds to three decimals."""
        return {
            name: {key: round(ms, 3) for key, ms in value.items()} if isinstance(value, dict) else value
            for name, value in asdict(self).items()
        }

    def describe(self) -> str:
        """For people."""
        return (
            f"one image of {self.px} px in {self.predict.p50_ms:.1f} ms (p95 {self.predict.p95_ms:.1f}), "
            f"{self.ways} classes with {self.support_images} images learned in {self.adapt.p50_ms:.0f} ms "
            f"(p95 {self.adapt.p95_ms:.0f})"
        )


def measure_latency(
    learner: Adapts | Path,
    support: tuple[Images, NDArray[np.int64]],
    query: Images,
    *,
    repeats: int = REPEATS,
    clock: Callable[[], float] | None = None,
) -> Latency:
    """Measure a learner, or the one saved in a folder, through the engines that it was saved with.

    `support`: images uint8 [s, 3, h, w] with labels int64 [s] in 0..ways-1; `query`: images uint8 [q, 3, h, w]. Each
    call gets images that no call before had (one pixel differs), as learners keep what they have embedded. The first
    call of each kind is cold: engines are built in it. Some further calls are not counted, then come `repeats`
    calls for one image, and for the others fewer, three at least. DataError where there is no query or support.
    """
    images, labels = support
    if not len(images) or not len(query):
        raise DataError("latency is measured on a support image and a query image or more; there are none")
    chosen = load_learner(learner) if isinstance(learner, Path) else learner
    ways = int(labels.max()) + 1
    predictors: list[Predicts] = []

    def adapt(seen: Images) -> None:
        predictors[:] = [chosen.fit(seen, labels, ways)]

    def predict(asked: Images) -> None:
        predictors[0].predict(asked)

    fewer = max(repeats // FEWER, 3)
    adapted = _time(adapt, images, (1, fewer), clock)
    one = _time(predict, query[:1], (WARM_UPS, repeats), clock)
    batch = _time(predict, query, (1, fewer), clock)
    return Latency(
        adapted,
        one,
        batch,
        px=query.shape[-1],
        ways=ways,
        support_images=len(images),
        batch_images=len(query),
        repeats=repeats,
        threads=torch.get_num_threads(),
    )


def _fresh(images: Images) -> Images:
    """A copy of images that no call before had: the first pixels of each count the calls in this process."""
    changed = np.array(images)
    changed[:, 0, 0, :4] ^= np.frombuffer(np.uint32(next(_CALLS)).tobytes(), np.uint8)[: images.shape[-1]]
    return changed


def _time(
    work: Callable[[Images], None],
    images: Images,
    calls: tuple[int, int],
    clock: Callable[[], float] | None,
) -> Timing:
    """Time work on images; making them fresh does not count."""
    warm_ups, repeats = calls
    seconds = []
    for _ in range(1 + warm_ups + repeats):
        asked = _fresh(images)
        elapsed = stopwatch(clock)
        work(asked)
        seconds.append(elapsed())
    return Timing.of(seconds[0], seconds[1 + warm_ups :])
