"""Training steps of learners on a frozen backbone: its adapter as matrix products against 1×1 convolutions.

    python benchmarks/adapters.py [--quick] [--json FILE]

Random vectors of EfficientNet-lite0's width, 5 ways, 5 shots, 5 queries a class, 4 tasks a step, one thread. Rows
`adapter/<learner>`: steps a second, those with `torch.nn.Conv2d` as the reference.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from _learner_report import Report, row
from torch import nn

from autometa.learners.encoder import ADAPTER_WIDTH, Encoder
from autometa.learners.episodes import InputEpisodes
from autometa.learners.networks import PointwiseConv2d
from autometa.learners.recipe import find_learner

WIDTH, WAYS, SHOTS, QUERIES, TASKS = 1280, 5, 5, 5, 4
LEARNERS: dict[str, dict[str, Any]] = {
    "maml": {"steps": 5, "tasks": "loop"},
    "fomaml": {"steps": 5, "tasks": "loop"},
    "anil": {"tasks": "loop"},
    "prototypical": {},
}


class AdapterAlone(Encoder):
    """What comes after a frozen backbone: its vectors [n, d, 1, 1] plus what an adapter makes of them."""

    shape = (WIDTH, 1, 1)

    def __init__(self, build: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.adapter = nn.Sequential(build(WIDTH, ADAPTER_WIDTH), nn.ReLU(), build(ADAPTER_WIDTH, WIDTH))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Vectors [n, d, 1, 1] → the same shape."""
        return inputs + cast(torch.Tensor, self.adapter(inputs))


def convolution(channels_in: int, channels: int) -> nn.Module:
    """As a user of PyTorch would write it."""
    return nn.Conv2d(channels_in, channels, 1)


def episodes() -> InputEpisodes:
    """Random vectors of the tasks of a step."""
    support, query = (torch.randn(TASKS, WAYS * n, WIDTH, 1, 1) for n in (SHOTS, QUERIES))
    labels = torch.arange(WAYS).expand(TASKS, WAYS)
    parts = labels.repeat_interleave(SHOTS, dim=1), query, labels.repeat_interleave(QUERIES, dim=1)
    return InputEpisodes(support, *parts, torch.full((TASKS,), WAYS))


def step_seconds(name: str, batch: InputEpisodes, rounds: int) -> tuple[float, float]:
    """Shortest seconds of a step with matrix products and with convolutions, which take turns."""
    spec, best = find_learner(name), [float("inf")] * 2
    learners = []
    for build in (PointwiseConv2d, convolution):
        torch.manual_seed(0)
        options = spec.cls.options_type(**LEARNERS[name])
        learners.append(spec.cls(AdapterAlone(build), options).train())
    for round_ in range(rounds + 1):
        for place, learner in enumerate(learners):
            learner.zero_grad()
            began = time.perf_counter()
            learner.accumulate(batch)
            if round_:  # the first one warms up
                best[place] = min(best[place], time.perf_counter() - began)
    return best[0], best[1]


def main() -> None:
    """Measure all learners of `LEARNERS`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two rounds instead of five")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report = Report(given.json, f"{WAYS} ways, {SHOTS} shots, {TASKS} tasks, width {WIDTH}", resume=False)
    batch = episodes()
    for name in LEARNERS:
        ours, theirs = step_seconds(name, batch, 2 if given.quick else 5)
        report.add([row(f"adapter/{name}", 1 / ours, "steps/s", 1 / theirs)])


if __name__ == "__main__":
    main()
