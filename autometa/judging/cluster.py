"""Runs of a judging on the machines of a Ray cluster: the only module that imports Ray."""

from __future__ import annotations

import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autometa.core.errors import FAILURES, AutometaError, ConfigError, describe
from autometa.judging.executor import failed_row
from autometa.judging.guest import Job, Played, forget, play_as_guest
from autometa.judging.ledger import Row
from autometa.judging.runs import GRACE_S, run_folder
from autometa.judging.submissions import Unit
from autometa.judging.travel import pack, unpack

Play = Callable[[Job, Unit, bytes, bytes | None], Played]
LOCAL = "local"
"""Instead of an address: a cluster on this machine, which ends with the program."""
POLL_S = 1.0
"""Seconds between two looks at which machines there are."""
TRIES = 2
"""How often a run is begun whose machine or process is lost."""
NO_MACHINE_S = 600.0
"""How long to wait for a machine where the last one was lost."""
CONNECT_S = 10.0
"""For the head of a cluster to answer."""
FORGET_S = 10.0
"""To delete what was left on the machines."""


@dataclass(frozen=True)
class Needs:
    """What each run gets of a machine."""

    cpus: int
    memory_bytes: int
    gpus: float = 0.0
    label: tuple[str, str] | None = None

    def slots_of(self, node: dict[str, Any]) -> int:
        """How many runs a machine of the cluster has room for."""
        if not is_usable(node, self.label):
            return 0
        has, room = node["Resources"], []
        for name, each in (("CPU", self.cpus), ("memory", self.memory_bytes), ("GPU", self.gpus)):
            if each:
                room.append(int(has.get(name, 0) // each))
        return min(room)

    def options(self) -> dict[str, Any]:
        """The same for Ray. A run that is lost is begun again here, not by Ray."""
        found = {"num_cpus": self.cpus, "memory": self.memory_bytes, "num_gpus": self.gpus, "max_retries": 0}
        return found | ({"label_selector": dict([self.label])} if self.label else {})


def is_usable(node: dict[str, Any], label: tuple[str, str] | None) -> bool:
    """Whether a machine of the cluster is alive and has the label, if one is asked for."""
    return bool(node["Alive"]) and (label is None or node.get("Labels", {}).get(label[0]) == label[1])


def load_ray() -> Any:
    """The module. ConfigError says what to install where it is not there."""
    try:
        import ray  # noqa: PLC0415 - an optional package
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ConfigError("--ray: Ray is not installed; run: pip install 'autometa[distributed]'") from error
    return ray


def connect(address: str) -> Any:
    """Ray, connected to a cluster. ConfigError where none answers at this address."""
    ray = load_ray()
    try:
        _check_address(address)
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="error",
            include_dashboard=False if address == LOCAL else None,
        )
    except (ray.exceptions.RayError, ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"--ray {address}: no cluster can be used there ({describe(error)}); start one with "
            f"`ray start --head`, or use --ray {LOCAL}"
        ) from error
    return ray


def _check_address(address: str) -> None:
    """Ray waits a minute for an address that does not answer. OSError or ValueError where none would."""
    host, is_pair, port = address.rpartition(":")
    if address.startswith("ray://"):
        raise ValueError("Ray Client cannot be used; give the address of the head, such as 10.0.0.1:6379")
    if is_pair:
        socket.create_connection((host, int(port)), CONNECT_S).close()


def needs_of_runs(
    ray: Any, jobs: int, memory_bytes: int | None, label: tuple[str, str] | None, *, gpus: bool = True
) -> Needs:
    """What each run gets where every machine does `jobs` at a time: an equal share of the smallest machine, so that
    all runs have the same. ConfigError where no machine has the label or enough of anything."""
    alive = [node for node in ray.nodes() if is_usable(node, label)]
    if not alive:
        wanted = f"with label {label[0]}={label[1]}" if label else "that is alive"
        raise ConfigError(f"--ray: the cluster has no machine {wanted}; add one, or name another label")
    least = {name: min(node["Resources"].get(name, 0) for node in alive) for name in ("CPU", "memory", "GPU")}
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


@dataclass
class Cluster:
    """Does runs on the machines of a cluster. Their files go to `folder`, as if they had run here. `job` and `needs`
    are of all runs; `show` hears of what is lost; `play` does a run there."""

    ray: Any
    job: Job
    needs: Needs
    folder: Path
    show: Callable[[str], None]
    play: Play = play_as_guest
    clock: Callable[[], float] = time.monotonic
    _waiting: deque[tuple[Unit, int]] = field(default_factory=deque, init=False)
    _running: dict[Any, tuple[Unit, int, float]] = field(default_factory=dict, init=False)
    _bundles: dict[str, Any] = field(default_factory=dict, init=False)
    _dataset: Any = field(default=None, init=False)
    _player: Any = field(default=None, init=False)
    _without_s: float | None = field(default=None, init=False)

    def submit(self, unit: Unit) -> None:
        """Put it at the end of the queue."""
        self._waiting.append((unit, 1))

    def wait(self) -> Row | None:
        """Whatever ends first on any machine. ConfigError where no machine is left for some minutes, or one has
        another version of autometa: what was done stays."""
        while True:
            self._start()
            if not self._running and not self._waiting:
                raise LookupError("no run is left")
            done, _ = self.ray.wait(list(self._running), timeout=POLL_S) if self._running else ([], [])
            if not done and not self._running:
                time.sleep(POLL_S)
            for ref in done or self._late():
                unit, tries, _ = self._running.pop(ref)
                row = self._take(ref, unit, tries)
                if row is not None:
                    return row

    def close(self) -> None:
        """End the runs that go on, start no others, and delete what was left on the machines."""
        self._waiting.clear()
        for ref in self._running:
            self.ray.cancel(ref, force=True)
        self._running.clear()
        place = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        clean = self.ray.remote(forget)
        nodes = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
        refs = [
            clean.options(num_cpus=0, scheduling_strategy=place(node, soft=False)).remote(self.job.token)
            for node in nodes
        ]
        self.ray.wait(refs, num_returns=len(refs), timeout=FORGET_S)
        self.ray.shutdown()

    def slots(self) -> int:
        """How many runs there is room for now: machines come and go."""
        return sum(self.needs.slots_of(node) for node in self.ray.nodes())

    def _start(self) -> None:
        """Send as many runs as there is room for, and one more, so that none waits for the judge."""
        slots = self.slots()
        if slots:
            self._without_s = None
        elif self._without_s is None:
            self._without_s = self.clock()
            self.show(f"no machine is left in the cluster; waits up to {NO_MACHINE_S:.0f} s for one")
        elif self.clock() - self._without_s > NO_MACHINE_S:
            raise ConfigError("--ray: no machine is left in the cluster; start some, then add --resume")
        while self._waiting and slots and len(self._running) <= slots:
            unit, tries = self._waiting.popleft()
            if self._player is None:  # once: each is sent to the machines anew
                self._player = self.ray.remote(self.play)
            play = self._player.options(**self.needs.options(), name=str(unit))
            ref = play.remote(self.job, unit, self._bundle(unit), self._dataset)
            self._running[ref] = unit, tries, self.clock()

    def _bundle(self, unit: Unit) -> Any:
        """The bundle in the store of objects, where it is put once."""
        own = unit.submission
        if own.name not in self._bundles:
            self._bundles[own.name] = self.ray.put(pack(own.path))
        return self._bundles[own.name]

    def _late(self) -> list[Any]:
        """Runs whose machine does not say anything any more: they had to end long ago, wherever they waited."""
        limit_s = 2 * (self.job.options.time_budget + GRACE_S)
        return [ref for ref, (_, _, began_s) in self._running.items() if self.clock() - began_s > limit_s]

    def _take(self, ref: Any, unit: Unit, tries: int) -> Row | None:
        """The row of a run that has ended; None where it is begun again."""
        try:
            played: Played = self.ray.get(ref, timeout=POLL_S)
        except self.ray.exceptions.RayTaskError as error:
            return self._failed(unit, error.cause)
        except self.ray.exceptions.RayError as error:
            self.ray.cancel(ref, force=True)
            reason = f"its machine or process was lost ({type(error).__name__})"
            if tries < TRIES:
                self.show(f"{unit}: {reason}; begins again")
                self._waiting.appendleft((unit, tries + 1))
                return None
            return failed_row(unit, f"{reason}, {tries} times")
        if played.lacks_dataset:
            if self._dataset is None:
                self.show(f"{played.node}: gets the dataset, which it does not have")
                self._dataset = self.ray.put(pack(self.job.dataset))
            self._waiting.appendleft((unit, tries))
            return None
        if played.files is not None:
            unpack(played.files, run_folder(self.folder, unit.submission.name, unit.seed).parent)
        return played.row or failed_row(unit, "the run was stopped on its machine")

    def _failed(self, unit: Unit, error: Exception | None) -> Row:
        """The row of a run that could not be done. ConfigError where none can be done there."""
        if isinstance(error, AutometaError):
            raise error
        known = isinstance(error, FAILURES)
        return failed_row(
            unit, f"the run could not be done: {describe(error) if known and error else error!r}"
        )


def new_token() -> str:
    """A name for a judging that no other one has."""
    return secrets.token_hex(8)
