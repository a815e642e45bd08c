"""How long a saved learner takes to learn new classes and to answer: the only place of this package that asks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from autometa.tuning.point import Quantiles

LIMIT_S = 300.0


class Latencies(BaseModel):
    """Milliseconds to learn the classes of a support set, to answer one image, and to answer a batch of images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapt_ms: Quantiles
    predict_ms: Quantiles
    predict_batch_ms: Quantiles


def measure_latencies(model: Path, px: int) -> Latencies | str:
    """Of the learner in a folder, in a process of its own, or why they could not be measured. Processors and the
    device are those that this process may use now."""
    program = [sys.executable, "-m", "autometa.tuning.latency_child", str(model), str(px)]
    try:
        done = subprocess.run(program, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"latency: not measured within {LIMIT_S:.0f} s"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"latency: not measured ({last})"
    try:
        return Latencies.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValidationError) as error:
        return f"latency: not measured ({type(error).__name__} in what was measured)"
