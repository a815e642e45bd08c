"""Meta-steps per second of MAML against learn2learn and against a plain loop, measured in one run.

    python benchmarks/maml.py [--quick] [--json FILE] [--learn2learn DIR] [--chunks] [--second-order]

Conv-4 (64 filters), 28 px, 5 ways, one inner step, 5 queries a class, as in `measurements`: a meta-step is the
gradient of a meta-batch. learn2learn's Cython part does not build on Python 3.11, but its algorithms are pure
Python and run when the package's `__init__` is bypassed, which this script does:

    pip download learn2learn --no-deps --no-binary :all: --no-build-isolation && tar xzf learn2learn-*.tar.gz
    python benchmarks/maml.py --learn2learn learn2learn-0.2.0

`--chunks` adds, on a GPU, chunks of tasks that take so many times the memory of one, with and without CUDA graphs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from _maml_rivals import DEVICE, RATE, WAYS, Step, learn2learn, loop, offer_learn2learn
from torch import nn

from autometa.core.machine import Machine
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import InputEpisodes
from autometa.learners.recipe import Recipe, build_learner

QUERIES, PX = 5, 28
Way = Literal["auto", "vmap", "graph"]
TIMES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Memory of chunks, as multiples of that of one task."""


def episodes(tasks: int, shots: int) -> InputEpisodes:
    """Synthetic images of `tasks` tasks."""
    generator = torch.Generator().manual_seed(0)
    support, query = (
        torch.randint(256, (tasks, WAYS * n, 3, PX, PX), dtype=torch.uint8, generator=generator)
        for n in (shots, QUERIES)
    )
    labels = torch.arange(WAYS).expand(tasks, WAYS)
    batch = InputEpisodes(
        support,
        labels.repeat_interleave(shots, dim=1),
        query,
        labels.repeat_interleave(QUERIES, dim=1),
        torch.full((tasks,), WAYS),
    )
    return batch.to(DEVICE)


def ours(
    batch: InputEpisodes, *, first_order: bool, tasks: Way = "auto", times: float | None = None
) -> tuple[Step, nn.Module]:
    """A meta-step of autometa's MAML."""
    options = {"steps": 1, "rate": RATE, "clip": None, "first_order": first_order, "tasks": tasks}
    options["task_memory"] = times
    learner = build_learner(Recipe(learner="maml", options=options, encoder=EncoderSpec(px=PX))).to(DEVICE)
    learner.train()

    def step() -> None:
        learner.zero_grad()
        learner.accumulate(batch)

    return step, learner


WAYS_OF: dict[str, Callable[..., tuple[Step, nn.Module]]] = {
    "autometa": ours,
    "vmap": partial(ours, tasks="vmap"),
    "loop": loop,
    "learn2learn": learn2learn,
}
CHUNKS: dict[str, Callable[..., tuple[Step, nn.Module]]] = {
    f"chunks/{way}/{times:g}": partial(ours, tasks=way, times=times)
    for way in ("vmap", "graph")
    for times in TIMES
}


def seconds(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """The shortest time over some rounds, in which all take turns, so that other load affects all."""
    best = dict.fromkeys(steps, float("inf"))
    for round_ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            if round_:  # the first one warms up
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def peak_bytes(name: str, first_order: bool, tasks: int, shots: int, source: Path | None) -> int:
    """Peak memory of three meta-steps in a separate process, without the memory for importing and building."""
    Machine.detect().warm_up()
    if name == "learn2learn":
        offer_learn2learn(source)
    step, _ = {**WAYS_OF, **CHUNKS}[name](episodes(tasks, shots), first_order=first_order)
    if DEVICE == "cuda":
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is measured from here
        before = resident("VmRSS")
    for _ in range(3):
        step()
    if DEVICE == "cuda":
        return int(torch.cuda.max_memory_allocated() - before)
    return resident("VmHWM") - before


def resident(key: str) -> int:
    """Bytes of main memory of this process: `VmRSS` now, `VmHWM` at its peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def same_gradients(batch: InputEpisodes, *, first_order: bool) -> float:
    """Relative difference of the first convolution's gradient, ours to the plain loop's, at the same weights."""
    (our_step, learner), (their_step, network) = (f(batch, first_order=first_order) for f in (ours, loop))
    own = [m for m in learner.modules() if isinstance(m, nn.Conv2d)]
    for mine, theirs in zip(own, [m for m in network.modules() if isinstance(m, nn.Conv2d)], strict=True):
        theirs.weight.data.copy_(mine.weight.data)
    our_step()
    their_step()
    our_slope, their_slope = own[0].weight.grad, network.body[0].weight.grad
    return float((our_slope - their_slope).norm() / their_slope.norm())


def measure(
    first_order: bool, tasks: int, shots: int, rounds: int, source: Path | None
) -> list[dict[str, Any]]:
    """Rows of one setting."""
    order = "first_order" if first_order else "second_order"
    has_rival = offer_learn2learn(source)
    rivals = ["vmap", "loop", *(["learn2learn"] if has_rival else [])]
    batch = episodes(tasks, shots)
    steps = {n: WAYS_OF[n](batch, first_order=first_order)[0] for n in ("autometa", *rivals)}
    took = seconds(steps, rounds)
    off = same_gradients(batch, first_order=first_order)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:  # a separate process for each
        peaks = {n: pool.apply(peak_bytes, (n, first_order, tasks, shots, source)) for n in steps}
    rows = []
    for rival in rivals:
        note = f"{shots} shots, meta-batch {tasks}, {DEVICE}; gradients within {off:.0e} of the loop's"
        speed, theirs = 1 / took["autometa"], 1 / took[rival]
        rows.append(
            {
                "name": f"maml/{order}/vs_{rival}",
                "value": speed,
                "unit": "meta-steps/s",
                "reference": theirs,
                "ratio": speed / theirs,
                "note": note,
            }
        )
        memory = {"name": f"maml/{order}/peak_memory", "value": peaks["autometa"] / 2**20, "unit": "MiB"}
        rows.append(
            memory
            | {
                "reference": peaks[rival] / 2**20,
                "ratio": peaks["autometa"] / max(peaks[rival], 1),
                "note": f"to {rival}; {note}",
            }
        )
    return rows


def measure_chunks(tasks: int, shots: int, rounds: int, source: Path | None) -> list[dict[str, Any]]:
    """Rows of second-order chunks of tasks, against learn2learn or the plain loop."""
    rival = "learn2learn" if offer_learn2learn(source) else "loop"
    batch, rows = episodes(tasks, shots), []
    ways = {rival: WAYS_OF[rival], **CHUNKS}
    took = seconds({name: way(batch, first_order=False)[0] for name, way in ways.items()}, rounds)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {name: pool.apply(peak_bytes, (name, False, tasks, shots, source)) for name in ways}
    for name in CHUNKS:
        figures = (
            (f"maml/{name}/vs_{rival}", "meta-steps/s", 1 / took[name], 1 / took[rival]),
            (f"maml/{name}/peak_memory", "MiB", peaks[name] / 2**20, peaks[rival] / 2**20),
        )
        for title, unit, value, reference in figures:
            row = {"name": title, "value": value, "unit": unit, "reference": reference}
            rows.append(
                row | {"ratio": value / reference, "note": f"to {rival}, meta-batch {tasks}, {DEVICE}"}
            )
    return rows


def main() -> None:
    """Run everything that the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one shot, meta-batch 16 only: under a minute")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--learn2learn", type=Path, help="folder of learn2learn's unpacked source package")
    parser.add_argument(
        "--chunks", action="store_true", help="on a GPU, chunks of tasks of several sizes, too"
    )
    parser.add_argument("--second-order", action="store_true", help="leave out the first order")
    parser.add_argument("--threads", type=int, default=Machine.detect().cores)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    Machine.detect().warm_up()  # switches off TF32, which gradients are compared without
    if not offer_learn2learn(options.learn2learn):
        print("learn2learn: not found, compared with the plain loop only; see --help")
    settings = [(16, 1)] if options.quick else [(16, 1), (32, 1), (16, 5), (32, 5)]
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        line = "{name:<34} {value:>8.3g} {unit} (reference {reference:.3g}, ratio {ratio:.2f})  {note}"
        print(line.format(**row), flush=True)

    if options.chunks and DEVICE == "cuda":
        for row in measure_chunks(16, 1, 3, options.learn2learn):
            add(row)
    for first_order in (False,) if options.second_order else (False, True):
        for tasks, shots in settings:
            for row in measure(first_order, tasks, shots, 2 if options.quick else 5, options.learn2learn):
                add(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
