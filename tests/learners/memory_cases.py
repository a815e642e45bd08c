"""Tiny memory-based learners."""

from __future__ import annotations

from typing import Any

import torch
from learner_cases import built as built_metric

from autometa.learners.memory.base import Sequences
from autometa.learners.recipe import LEARNERS

MEMORY = [name for name, spec in LEARNERS.items() if spec.family == "memory"]
MAX_WAYS = 7
QUICK: dict[str, dict[str, Any]] = {
    "mann": {"controller": 12, "rows": 10, "row_width": 6, "heads": 2},
    "meta_networks": {"hidden": 6, "units": 4},
    "snail": {"layers": 3, "filters": 4},
}


def built(name: str, **options: Any) -> Any:
    """A learner for up to `MAX_WAYS` classes as after some training, in evaluation mode."""
    return built_metric(name, **{"max_ways": MAX_WAYS, "readings": 2} | QUICK.get(name, {}) | options)


def sequences(b: int, s: int, q: int, d: int, ways: int = MAX_WAYS, seed: int = 0) -> Sequences:
    """Random sequences without padding."""
    generator = torch.Generator().manual_seed(seed)
    slots = torch.randint(ways, (b, s), generator=generator)
    return Sequences(
        torch.randn(b, s, d, generator=generator),
        torch.nn.functional.one_hot(slots, ways).float(),
        torch.ones(b, s, dtype=torch.bool),
        torch.randn(b, q, d, generator=generator),
    )
