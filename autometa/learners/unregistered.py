"""Networks beside those that a module owns."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

Network = TypeVar("Network")


class Unregistered(Generic[Network]):
    """A network that a module uses but does not register: it is not trained, moved, saved or copied with it."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def __deepcopy__(self, memo: dict[int, Any]) -> Unregistered[Network]:
        return self
