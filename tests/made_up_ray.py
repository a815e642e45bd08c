"""A cluster whose machines are made up, for tests of what is sent to them, and what is lost."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

GB = 10**9
LARGE: dict[str, Any] = {
    "Alive": True,
    "NodeID": "a",
    "Resources": {"CPU": 4.0, "memory": 8.0 * GB},
    "Labels": {"kind": "large"},
}
SMALL: dict[str, Any] = {"Alive": True, "NodeID": "b", "Resources": {"CPU": 2.0, "memory": 4.0 * GB}}
LOST: dict[str, Any] = {"Alive": False, "NodeID": "c", "Resources": {"CPU": 64.0, "memory": 64.0 * GB}}


class Lost(Exception):
    """As of Ray: a machine or process was lost."""


class TaskError(Lost):
    """As of Ray: a run raised something."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class MadeUpRay:
    """A cluster whose runs end when they are waited for, the last one first. `lose` tells how often runs of a name
    are lost, `raises` what they raise; where it is `stuck`, none ends; it may be `full`, or
    `headless`."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.machines = list(nodes)
        self.lose: dict[str, int] = {}
        self.raises: dict[str, Exception] = {}
        self.exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=Lost)
        strategy = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
        self.util = SimpleNamespace(scheduling_strategies=strategy)
        self.most, self.stored, self.cancelled, self.cleaned = 0, list[Any](), list[Any](), list[str]()
        self.asked: list[dict[str, Any]] = []
        self._calls: dict[str, Callable[[], Any]] = {}
        self.ended = self.stuck = self.full = self.headless = False

    def nodes(self) -> list[dict[str, Any]]:
        if self.headless:
            raise Lost
        return self.machines

    def put(self, content: Any) -> Any:
        if self.full:
            raise Lost("the store is full")
        self.stored.append(content)
        return content

    def remote(self, function: Callable[..., Any]) -> Any:
        return SimpleNamespace(options=lambda **options: self._task(function, options))

    def _task(self, function: Callable[..., Any], options: dict[str, Any]) -> Any:
        def call(*arguments: Any) -> str:
            if "scheduling_strategy" in options:
                self.cleaned.append(options["scheduling_strategy"])
                return "cleaned"
            ref = f"{options['name']} #{len(self.asked)}"
            self.asked.append(options)
            self._calls[ref] = lambda: function(*arguments)
            self.most = max(self.most, len(self._calls))
            return ref

        return SimpleNamespace(remote=call)

    def wait(self, refs: list[str], timeout: float, num_returns: int = 1) -> tuple[list[str], list[str]]:
        return ([], refs) if self.stuck else (refs[-1:], refs[:-1])

    def get(self, ref: str, timeout: float) -> Any:
        name, call = ref.partition(" #")[0], self._calls.pop(ref)
        if self.lose.get(name, 0):
            self.lose[name] -= 1
            raise Lost
        if name in self.raises:
            raise TaskError(self.raises[name])
        return call()

    def cancel(self, ref: str, force: bool) -> None:
        self.cancelled.append(ref)

    def shutdown(self) -> None:
        self.ended = True
