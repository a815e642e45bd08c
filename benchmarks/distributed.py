"""What judging on a Ray cluster costs beside its runs, and what clusters of up to 1,000 machines would do.

    python benchmarks/distributed.py [--quick] [--json FILE] [--simulate MS] [--plot FILE]

`overhead_ms_per_trial`: milliseconds for each run beside what it does itself: sending it, taking its row and files,
writing the ledger, on a cluster of one machine; `with_files`: and writing the files of 90 tasks. `bytes_per_trial`:
what travels with such a run, without the submission, which goes to each machine once. `overhead_ms_per_part`:
milliseconds for each part of the images of a search beside embedding it: sending it, and taking the features of 64
images (a part of a second has more); `bytes_per_part`: of these features. `nodes_N/efficiency`: runs that wait for a
second on N machines, as a share of what so many machines could do (reference: 1). All machines are
this one, so runs must not compute; what its processors would do on several machines is not measured.
`simulated_workers_N/utilisation`: a discrete simulation (`_cluster_simulation.py`) with the latter overhead and ten
runs a machine, whose seconds are drawn around 150 s, as those of the arena at 180 s are; with `judge_load`, the
share of the time in which the judge is busy. Needs `pip install 'autometa[distributed]'`.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _cluster_plot import draw_clusters
from _cluster_simulation import Simulated, simulate
from _learner_report import Report, Row, row

from autometa.backbones import BackboneSpec
from autometa.backbones.embedders import EmbedOnCluster
from autometa.backbones.embedding_parts import Embedded, Part, Pass
from autometa.executors.ray_cluster import Needs, connect, load_ray
from autometa.judging.cluster import Cluster, new_token
from autometa.judging.guest import Job, Played
from autometa.judging.judge import judge
from autometa.judging.ledger import Identity, Ledger
from autometa.judging.ledger import Row as RunRow
from autometa.judging.options import JudgeOptions
from autometa.judging.submissions import Submission, Unit, digest
from autometa.judging.travel import pack

NODES = (1, 2, 3)
WORKERS = (1, 3, 10, 30, 100, 300, 1000)
RUNS_EACH = 10
EFFORT = {False: (300, 20, NODES), True: (50, 5, NODES[:2])}
"""Idle runs, waiting runs of each machine, and numbers of machines; quick or not."""
RUN_S, SPREAD = 150.0, 0.15
"""Seconds of a run with a budget of 180 s, and the standard deviation of their logarithm."""
START_S = 20.0
"""Seconds that a machine decodes images before its first run."""
TASKS = 90
MEMORY, STORE = 10**8, 10**8
WAIT_S = 1.0
IMAGES, WIDTH = 64, 2600
"""Of a part, and numbers of an image in all layers of a usual network."""
OWN = Pass(BackboneSpec("made up", "none", 0.0, 128, "none"), "made up", 128, False, "eager", "cpu")


def play(job: Job, unit: Unit, bundle: bytes, _dataset: bytes | None) -> Played:
    """A run that leaves a file of predictions for each task; those called `waits` wait, one called `idle` leaves one
    file only."""
    time.sleep(WAIT_S if unit.submission.name.startswith("waits") else 0.0)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for task in range(1 if unit.submission.name == "idle" else TASKS):
            archive.writestr(
                f"{unit.seed}/ingestion/task_{task}.predict", "0.100000 0.200000 0.700000\n" * 25
            )
    row = RunRow(
        submission=unit.submission.name,
        seed=unit.seed,
        digest=unit.submission.digest,
        status="ok",
        accuracies=(0.5,) * TASKS,
    )
    return Played("here", row, whole.getvalue())


def embed(part: Part, _state: object, _images: object, _threads: int) -> Embedded:
    """A part that embeds nothing."""
    return Embedded(part.number, np.zeros((IMAGES, WIDTH), np.float32))


class Machines:
    """A cluster with machines that are all this one."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster as Made  # noqa: PLC0415 - an optional package

        load_ray().cloudpickle.register_pickle_by_value(sys.modules[play.__module__])
        given: dict[str, Any] = {"num_cpus": 1, "memory": MEMORY, "object_store_memory": STORE}
        self._made = Made(initialize_head=True, head_node_args=given)
        for _ in range(count - 1):
            self._made.add_node(**given)

    def judge(self, folder: Path, name: str, runs: int) -> float:
        """Seconds that so many runs of a submission take, after a first one that starts processes."""
        bundle = folder / name
        bundle.mkdir(exist_ok=True)
        (bundle / "model.py").write_text("pass\n")
        own = Submission(name, bundle, digest(bundle))
        ray = connect(self._made.address)
        job = Job(new_token(), folder, "", JudgeOptions(), MEMORY // 2, 1, 10)
        cluster = Cluster(ray, job, Needs(1, MEMORY // 2), folder / "out", print, play=play)
        for seed in range(cluster.capacity()):
            cluster.submit(Unit(own, seed))
        for _ in range(cluster.capacity()):
            cluster.wait()
        ledger = Ledger(folder / f"{name}.jsonl")
        ledger.open(Identity(dataset="made up", options={}))
        began = time.monotonic()
        cluster.close, close = lambda: None, cluster.close  # type: ignore[method-assign]
        judge([Unit(own, seed) for seed in range(runs)], ledger, cluster, lambda _: None)
        seconds = time.monotonic() - began
        close()
        return seconds

    def embed(self, parts: int) -> float:
        """Seconds that so many parts of images take, after a first one that starts a process."""
        workers = EmbedOnCluster(connect(self._made.address), Needs(1, MEMORY // 2), print, embed)
        images = np.zeros((IMAGES, 3, 128, 128), np.uint8)
        workers.hold(images)
        workers.give(OWN, dict, images)
        for first in (1, parts):
            began = time.monotonic()
            for number in range(first):
                workers.submit(Part(number, OWN, np.arange(IMAGES), IMAGES, held=True))
            for _ in range(first):
                workers.wait()
        seconds = time.monotonic() - began
        workers.close()
        return seconds

    def close(self) -> None:
        """End all machines."""
        self._made.shutdown()


def measure_overhead(folder: Path, runs: int) -> tuple[float, float, float, int]:
    """Seconds for each run that does nothing, for one that also leaves files, and for a part of images; bytes of the
    second."""
    machines = Machines(1)
    try:
        idle_s, files_s = (machines.judge(folder, name, runs) / runs for name in ("idle", "files"))
        part_s = machines.embed(runs) / runs
    finally:
        machines.close()
    return idle_s, files_s, part_s, len(pack(folder / "out" / "runs" / "files")) // runs


def measure_efficiency(folder: Path, nodes: int, runs: int) -> float:
    """The share of what so many machines could do."""
    machines = Machines(nodes)
    try:
        seconds = machines.judge(folder, f"waits-{nodes}", runs * nodes)
    finally:
        machines.close()
    return runs * WAIT_S / seconds


def simulate_all(overhead_s: float) -> list[Simulated]:
    """Clusters of all sizes with this overhead."""
    found = []
    for workers in WORKERS:
        seconds = RUN_S * np.random.default_rng(workers).lognormal(0, SPREAD, RUNS_EACH * workers)
        found.append(simulate(seconds.tolist(), workers, overhead_s, START_S))
    return found


def simulated_rows(found: Sequence[Simulated]) -> Iterator[Row]:
    """The rows of clusters of all sizes."""
    for workers, each in zip(WORKERS, found, strict=True):
        note = (
            f"judge busy {each.judge_load:.1%}, half done after {each.half_s:.0f} of {each.makespan_s:.0f} s"
        )
        name = f"distributed/simulated_workers_{workers}"
        yield row(f"{name}/utilisation", each.utilisation, "share", 1.0, note=note)
        yield row(f"{name}/judge_load", each.judge_load, "share")


def measure(report: Report, *, quick: bool) -> float:
    """Measure on clusters of this machine; seconds of a run that leaves files."""
    load_ray()
    idle, waiting, nodes = EFFORT[quick]
    with tempfile.TemporaryDirectory(prefix="distributed-") as scratch:
        idle_s, overhead_s, part_s, n_bytes = measure_overhead(Path(scratch), idle)
        report.add(
            [
                row("distributed/overhead_ms_per_trial", 1000 * idle_s, "ms", 50.0),
                row("distributed/with_files_ms_per_trial", 1000 * overhead_s, "ms"),
                row("distributed/bytes_per_trial", n_bytes, "bytes"),
                row("distributed/overhead_ms_per_part", 1000 * part_s, "ms", 50.0),
                row("distributed/bytes_per_part", 4 * IMAGES * WIDTH, "bytes"),
            ]
        )
        for count in nodes:
            share = measure_efficiency(Path(scratch), count, waiting)
            report.add([row(f"distributed/nodes_{count}/efficiency", share, "share", 1.0)])
    return overhead_s


def main() -> None:
    """Parse the command line, measure, simulate, write."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="fewer runs, one and two machines")
    parser.add_argument(
        "--simulate",
        type=float,
        metavar="MS",
        help="only simulate, with this overhead of a run; needs no Ray",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the simulation, as PNG")
    asked = parser.parse_args()
    idle, waiting, _ = EFFORT[asked.quick]
    report = Report(asked.json, f"{idle} idle runs, {waiting} a machine that wait {WAIT_S:g} s", resume=False)
    overhead_s = measure(report, quick=asked.quick) if asked.simulate is None else asked.simulate / 1000
    found = simulate_all(overhead_s)
    report.add(list(simulated_rows(found)))
    if asked.plot:
        draw_clusters(
            asked.plot, WORKERS, found, f"runs of about {RUN_S:.0f} s, {1000 * overhead_s:.0f} ms each"
        )


if __name__ == "__main__":
    main()
