"""A program: a search with a tiny network on a cluster. Arguments: its address, and the folder of the learner."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[1]))

from other_embedders import Willing
from synthetic import colour_pool

from autometa.backbones import CATALOGUE, BackboneSpec, build
from autometa.backbones.embedders import EmbedOnCluster, join_cluster
from autometa.backbones.embedding_parts import Embedded, Part
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.settings import Settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.systems.autometa import Controller

SECONDS = 60.0


def seeded(spec: BackboneSpec, model: torch.nn.Module) -> None:
    """Random weights, always the same."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.1, generator=generator)


def main(address: str, folder: Path) -> None:
    """Search, and tell how many parts the cluster has done."""
    CATALOGUE["tiny"] = BackboneSpec("tiny", "test_resnet", 0.5, 64, "none")
    build.load_pretrained = seeded
    parts: list[int] = []

    class Counting(EmbedOnCluster):
        def take(self, unit: Part, came: Embedded) -> Embedded:
            parts.append(came.number)
            return super().take(unit, came)

    workers: Any = join_cluster(address, "cpu", print)
    workers.__class__ = Counting
    budget = TimeBudget.of(SECONDS)
    limits = Limits(budget, budget, MemoryBudget(8 * 2**30))
    test = TestSpec(20, EpisodeSpec((2, 4), (1, 5), 3), 100, "within-domain")
    settings = Settings(
        backbones=("tiny",),
        resolutions=(32, 48, 64),
        validation_episodes=36,
        max_trials=7,
        tune_steps=0,
        families=(),
    )
    run = Controller(settings, test, limits, folder, print, 1.0, spread=Willing(workers))
    run.bootstrap()
    run.run(colour_pool(classes=16, per_class=60))
    workers.close()
    print("parts from the cluster:", len(parts))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
