"""Runs of a judging on the machines of a Ray cluster."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autometa.core.errors import FAILURES, AutometaError, ConfigError, describe
from autometa.executors.ray_cluster import Needs, RayExecutor, is_usable, least_of
from autometa.judging.executor import failed_row
from autometa.judging.guest import Job, Played, forget, play_as_guest
from autometa.judging.ledger import Row
from autometa.judging.runs import GRACE_S, run_folder
from autometa.judging.submissions import Unit
from autometa.judging.travel import pack, unpack

Play = Callable[[Job, Unit, bytes, bytes | None], Played]
NO_MACHINE_S = 600.0
"""How long to wait for a machine where the last one was lost."""
FORGET_S = 10.0
"""To delete what was left on the machines."""


def needs_of_runs(
    ray: Any, jobs: int, memory_bytes: int | None, label: tuple[str, str] | None, *, gpus: bool = True
) -> Needs:
    """What each run gets where every machine does `jobs` at a time: an equal share of the smallest machine, so that
    all runs have the same. ConfigError where no machine has the label or enough of anything."""
    alive = [node for node in ray.nodes() if is_usable(node, label)]
    if not alive:
        wanted = f"with label {label[0]}={label[1]}" if label else "that is alive"
        raise ConfigError(f"--ray: the cluster has no machine {wanted}; add one, or name another label")
    least = least_of(alive)
    needs = Needs(
        cpus=int(least["CPU"] // jobs),
        memory_bytes=memory_bytes or int(least["memory"] // jobs),
        gpus=min(1.0, least["GPU"] / jobs) if gpus else 0.0,
        label=label,
    )
    if needs.cpus < 1 or max(map(needs.slots_of, alive)) < 1:
        raise ConfigError(
            f"--ray: no machine has room for {jobs} runs with {needs.memory_bytes / 1e9:.1f} GB each (the least "
            f"are {least['CPU']:.0f} processors and {least['memory'] / 1e9:.1f} GB); give a smaller --jobs or "
            "--memory-budget"
        )
    return needs


class Cluster(RayExecutor[Unit, Row]):
    """Does runs on the machines of a cluster. Their files go to `folder`, as if they had run here. `job` and `needs`
    are of all runs; `show` hears of what is lost; `play` does a run there."""

    def __init__(  # noqa: PLR0913 - what a judging is made of
        self,
        ray: Any,
        job: Job,
        needs: Needs,
        folder: Path,
        show: Callable[[str], None],
        *,
        play: Play = play_as_guest,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(ray, needs, show, clock)
        self.job, self.folder, self._play = job, folder, play
        self._bundles: dict[str, Any] = {}
        self._dataset: Any = None
        self._without_s: float | None = None

    @property
    def function(self) -> Play:
        """Does a run on its machine."""
        return self._play

    @property
    def limit_s(self) -> float:
        """Runs had to end long before."""
        return 2 * (self.job.options.time_budget + GRACE_S)

    def arguments(self, unit: Unit) -> tuple[Any, ...]:
        """The job, the run, its bundle, and the dataset if a machine lacks it."""
        return self.job, unit, self._bundle(unit), self._dataset

    def look(self, slots: int) -> None:
        """ConfigError where no machine is left for some minutes: what was done stays."""
        if slots:
            self._without_s = None
        elif self._without_s is None:
            self._without_s = self.clock()
            self.show(f"no machine is left in the cluster; waits up to {NO_MACHINE_S:.0f} s for one")
        elif self.clock() - self._without_s > NO_MACHINE_S:
            raise ConfigError("--ray: no machine is left in the cluster; start some, then add --resume")

    def take(self, unit: Unit, came: Played) -> Row | None:
        """The row of a run, its files written; None where its machine needs the dataset first."""
        if came.lacks_dataset:
            if self._dataset is None:
                self.show(f"{came.node}: gets the dataset, which it does not have")
                self._dataset = self.put(pack(self.job.dataset))
            return None
        if came.files is not None:
            unpack(came.files, run_folder(self.folder, unit.submission.name, unit.seed).parent)
        return came.row or failed_row(unit, "the run was stopped on its machine")

    def lost(self, unit: Unit, reason: str) -> Row:
        """A failed row."""
        return failed_row(unit, reason)

    def raised(self, unit: Unit, error: Exception | None) -> Row:
        """The row of a run that could not be done. ConfigError where none can be done there."""
        if isinstance(error, AutometaError):
            raise error
        known = isinstance(error, FAILURES)
        return failed_row(
            unit, f"the run could not be done: {describe(error) if known and error else error!r}"
        )

    def close(self) -> None:
        """End the runs that go on, start no others, and delete what was left on the machines."""
        self.cancel()
        place = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        clean = self.ray.remote(forget)
        nodes = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
        refs = [
            clean.options(num_cpus=0, scheduling_strategy=place(node, soft=False)).remote(self.job.token)
            for node in nodes
        ]
        self.ray.wait(refs, num_returns=len(refs), timeout=FORGET_S)
        super().close()

    def _bundle(self, unit: Unit) -> Any:
        """The bundle in the store of objects, where it is put once."""
        own = unit.submission
        if own.name not in self._bundles:
            self._bundles[own.name] = self.put(pack(own.path))
        return self._bundles[own.name]


def new_token() -> str:
    """A name for a judging that no other one has."""
    return secrets.token_hex(8)
