"""Units of work on the machines of a Ray cluster: the only module that imports Ray."""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from autometa.core.errors import ConfigError, describe
from autometa.executors.executor import R, U

LOCAL = "local"
"""Instead of an address: a cluster on this machine, which ends with the program."""
POLL_S = 1.0
"""Seconds between two looks at which machines there are."""
TRIES = 2
"""How often a unit is begun whose machine or process is lost."""
CONNECT_S = 10.0
"""For the head of a cluster to answer."""


@dataclass(frozen=True)
class Needs:
    """What each unit gets of a machine."""

    cpus: int
    memory_bytes: int
    gpus: float = 0.0
    label: tuple[str, str] | None = None

    def slots_of(self, node: dict[str, Any]) -> int:
        """How many units a machine of the cluster has room for."""
        if not is_usable(node, self.label):
            return 0
        has, room = node["Resources"], []
        for name, each in (("CPU", self.cpus), ("memory", self.memory_bytes), ("GPU", self.gpus)):
            if each:
                room.append(int(has.get(name, 0) // each))
        return min(room)

    def options(self) -> dict[str, Any]:
        """The same for Ray. A unit that is lost is begun again here, not by Ray."""
        found = {"num_cpus": self.cpus, "memory": self.memory_bytes, "num_gpus": self.gpus, "max_retries": 0}
        return found | ({"label_selector": dict([self.label])} if self.label else {})


def is_usable(node: dict[str, Any], label: tuple[str, str] | None) -> bool:
    """Whether a machine of the cluster is alive and has the label, if one is asked for."""
    return bool(node["Alive"]) and (label is None or node.get("Labels", {}).get(label[0]) == label[1])


def least_of(nodes: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Processors, bytes of memory and GPUs that each of these machines has at least, by Ray's names."""
    return {name: min(node["Resources"].get(name, 0) for node in nodes) for name in ("CPU", "memory", "GPU")}


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


class RayExecutor(ABC, Generic[U, R]):
    """Does units on the machines of a cluster, as many at a time as there is room for now, and one more, so that no
    machine waits for this one. A unit whose machine or process is lost begins once more, on any machine; `show` hears
    of it. What a class of units has to say is in the methods without a body."""

    def __init__(
        self,
        ray: Any,
        needs: Needs,
        show: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ray, self.needs, self.show, self.clock = ray, needs, show, clock
        self._waiting: deque[tuple[U, int]] = deque()
        self._running: dict[Any, tuple[U, int, float]] = {}
        self._remote: Any = None

    @property
    @abstractmethod
    def function(self) -> Callable[..., Any]:
        """What does a unit there."""

    @abstractmethod
    def arguments(self, unit: U) -> tuple[Any, ...]:
        """What it is given; references to the store of objects become what they refer to."""

    @abstractmethod
    def take(self, unit: U, came: Any) -> R | None:
        """The result of a unit, of what `function` has returned; None where it is to be done again."""

    @abstractmethod
    def lost(self, unit: U, reason: str) -> R:
        """The result of a unit that was lost as often as it was tried."""

    @abstractmethod
    def raised(self, unit: U, error: Exception | None) -> R:
        """The result of a unit for which `function` has raised something; or it is raised here."""

    @property
    def limit_s(self) -> float:
        """Seconds after which a unit counts as lost, wherever it waits: none, where whoever waits has a deadline."""
        return float("inf")

    def look(self, slots: int) -> None:
        """Hears before each wait how many units there is room for. It may raise where there is room for none."""

    def submit(self, unit: U) -> None:
        """Put it at the end of the queue."""
        self._waiting.append((unit, 1))

    def wait(self, timeout_s: float | None = None) -> R:
        """Whatever ends first on any machine; see `Executor`."""
        deadline_s = None if timeout_s is None else self.clock() + timeout_s
        while True:
            self._start()
            if not self._running and not self._waiting:
                raise LookupError("no unit is left")
            poll_s = POLL_S if deadline_s is None else min(POLL_S, max(deadline_s - self.clock(), 0.0))
            done, _ = self.ray.wait(list(self._running), timeout=poll_s) if self._running else ([], [])
            if not done and not self._running:
                time.sleep(poll_s)
            for ref in done or self._late():
                unit, tries, _ = self._running.pop(ref)
                result = self._end(ref, unit, tries)
                if result is not None:
                    return result
            if deadline_s is not None and not done and self.clock() >= deadline_s:
                raise TimeoutError(f"no unit has ended within {timeout_s} s")

    def cancel(self) -> None:
        """End the units that go on, with their processes, and forget those that wait."""
        self._waiting.clear()
        for ref in self._running:
            self.ray.cancel(ref, force=True)
        self._running.clear()

    def capacity(self) -> int:
        """How many units there is room for now: machines come and go. None where the head does not answer."""
        try:
            nodes = self.ray.nodes()
        except (self.ray.exceptions.RayError, OSError, RuntimeError):
            return 0
        return sum(map(self.needs.slots_of, nodes))

    def put(self, value: Any) -> Any:
        """A reference to a value in the store of objects. ConfigError where there is no room for it."""
        try:
            return self.ray.put(value)
        except self.ray.exceptions.RayError as error:
            raise self._full(error) from error

    def close(self) -> None:
        """End the units that go on, start no others, and leave the cluster."""
        self.cancel()
        self.ray.shutdown()

    def _start(self) -> None:
        """Send as many units as there is room for, and one more."""
        slots = self.capacity()
        self.look(slots)
        while self._waiting and slots and len(self._running) <= slots:
            unit, tries = self._waiting.popleft()
            if self._remote is None:  # once: each is sent to the machines anew
                self._remote = self.ray.remote(self.function)
            task = self._remote.options(**self.needs.options(), name=str(unit))
            try:
                ref = task.remote(*self.arguments(unit))
            except self.ray.exceptions.RayError as error:
                raise self._full(error) from error
            self._running[ref] = unit, tries, self.clock()

    def _full(self, error: Exception) -> ConfigError:
        """What to do where the cluster does not take what it is sent."""
        return ConfigError(
            f"--ray: the cluster takes nothing more ({describe(error)}); start its machines with a larger "
            "`ray start --object-store-memory BYTES`"
        )

    def _late(self) -> list[Any]:
        """Units whose machine does not say anything any more: they had to end long ago."""
        return [
            ref for ref, (_, _, began_s) in self._running.items() if self.clock() - began_s > self.limit_s
        ]

    def _end(self, ref: Any, unit: U, tries: int) -> R | None:
        """The result of a unit that has ended; None where it is begun again."""
        try:
            came = self.ray.get(ref, timeout=POLL_S)
        except self.ray.exceptions.RayTaskError as error:
            return self.raised(unit, error.cause)
        except self.ray.exceptions.RayError as error:
            self.ray.cancel(ref, force=True)
            reason = f"its machine or process was lost ({type(error).__name__})"
            if tries < TRIES:
                self.show(f"{unit}: {reason}; begins again")
                self._waiting.appendleft((unit, tries + 1))
                return None
            return self.lost(unit, f"{reason}, {tries} times")
        result = self.take(unit, came)
        if result is None:
            self._waiting.appendleft((unit, tries))
        return result
