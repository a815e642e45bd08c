"""`python -m autometa.tuning.latency_child MODEL PX` times a saved learner; prints what it takes as JSON.

Images are random. The task is that of the limits of latency: see `autometa.planning.serving_limits`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from autometa.model.latency import Timing, measure_latency
from autometa.planning.serving_limits import SHOTS, WAYS
from autometa.tuning.latency import Latencies
from autometa.tuning.point import Quantiles

BATCH = 20
REPEATS = 24
"""Calls for one image that are counted, as for the limits."""


def time_learner(folder: Path, px: int) -> Latencies:
    """Of the learner in a folder, on images uint8 [n, 3, px, px]."""
    rng = np.random.default_rng(0)
    support, query = (rng.integers(0, 256, (n, 3, px, px), dtype=np.uint8) for n in (WAYS * SHOTS, BATCH))
    found = measure_latency(folder, (support, np.repeat(np.arange(WAYS), SHOTS)), query, repeats=REPEATS)
    return Latencies(
        adapt_ms=_quantiles(found.adapt),
        predict_ms=_quantiles(found.predict),
        predict_batch_ms=_quantiles(found.batch),
    )


def _quantiles(timing: Timing) -> Quantiles:
    return Quantiles(p50=timing.p50_ms, p95=timing.p95_ms, p99=timing.p99_ms, cold=timing.cold_ms)


def main(arguments: list[str]) -> None:
    """Time the learner in a folder."""
    folder, px = arguments
    print(time_learner(Path(folder), int(px)).model_dump_json())


if __name__ == "__main__":
    main(sys.argv[1:])
