"""Engines: ways to run a frozen network. Which one is the fastest depends on the machine, the network and the
size."""

from autometa.backbones.engines.base import (
    TOLERANCE,
    Engine,
    EngineSpec,
    disagreement,
    split_by_room,
    split_layers,
)
from autometa.backbones.engines.race import EngineChoice, Race, RaceInput, build_checked
from autometa.backbones.engines.table import EAGER, ENGINES

__all__ = [
    "EAGER",
    "ENGINES",
    "TOLERANCE",
    "Engine",
    "EngineChoice",
    "EngineSpec",
    "Race",
    "RaceInput",
    "build_checked",
    "disagreement",
    "split_by_room",
    "split_layers",
]
