"""Engines: ways to run a frozen network, each faster than the others somewhere."""

from autometa.backbones.engines.base import (
    TOLERANCE,
    Engine,
    EngineSpec,
    disagreement,
    is_out_of_memory,
    layers_of,
)
from autometa.backbones.engines.race import Choice, Course, Race, build_checked
from autometa.backbones.engines.table import EAGER, ENGINES

__all__ = [
    "EAGER",
    "ENGINES",
    "TOLERANCE",
    "Choice",
    "Course",
    "Engine",
    "EngineSpec",
    "Race",
    "build_checked",
    "disagreement",
    "is_out_of_memory",
    "layers_of",
]
