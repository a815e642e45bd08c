"""`python -m autometa.tuning.latency_child MODEL WAYS SHOTS PX` times a saved learner; prints what it takes as JSON.

Images are random and never the same, so that nothing that was remembered answers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from autometa.core.budget import TimeBudget, stopwatch
from autometa.model.load import AnyLearner, AnyPredictor, load_learner

BATCH = 20
MOST_S = 3.0
"""For each kind of call, once its first has been made."""
CALLS = {"adapt_ms": 8, "predict_ms": 30, "predict_batch_ms": 5}
LEAST_CALLS = 3


class Timing:
    """Times the calls of one learner on random images uint8 [n, 3, px, px]."""

    def __init__(self, learner: AnyLearner, ways: int, shots: int, px: int) -> None:
        self._learner, self._ways, self._shots, self._px = learner, ways, shots, px
        self._rng = np.random.default_rng(0)
        self._predictor: AnyPredictor | None = None

    def measure(self) -> dict[str, dict[str, float]]:
        """Milliseconds of each kind of call: the first one, and quantiles of those after it."""
        return {
            "adapt_ms": self._time("adapt_ms", self._ways * self._shots, self._adapt),
            "predict_ms": self._time("predict_ms", 1, self._predict),
            "predict_batch_ms": self._time("predict_batch_ms", BATCH, self._predict),
        }

    def _time(self, name: str, images: int, call: Callable[[np.ndarray], None]) -> dict[str, float]:
        cold_ms, warm_ms = self._once(images, call), list[float]()
        budget = TimeBudget.of(MOST_S)
        while len(warm_ms) < LEAST_CALLS or (len(warm_ms) < CALLS[name] and budget.left_s() > 0):
            warm_ms.append(self._once(images, call))
        p50, p95, p99 = np.percentile(warm_ms, (50, 95, 99)).tolist()
        return {"p50": p50, "p95": p95, "p99": p99, "cold": cold_ms}

    def _once(self, images: int, call: Callable[[np.ndarray], None]) -> float:
        seen = self._rng.integers(0, 256, (images, 3, self._px, self._px), dtype=np.uint8)
        elapsed = stopwatch()
        call(seen)
        return 1000 * elapsed()

    def _adapt(self, images: np.ndarray) -> None:
        labels = np.repeat(np.arange(self._ways), self._shots)
        self._predictor = self._learner.fit(images, labels, self._ways)

    def _predict(self, images: np.ndarray) -> None:
        assert self._predictor is not None, "predicting comes after learning"
        self._predictor.predict(images)


def main(arguments: list[str]) -> None:
    """Time the learner in a folder."""
    folder, (ways, shots, px) = Path(arguments[0]), map(int, arguments[1:])
    print(json.dumps(Timing(load_learner(folder), ways, shots, px).measure()))


if __name__ == "__main__":
    main(sys.argv[1:])
