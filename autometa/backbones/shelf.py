"""The networks of a run, each built once."""

from __future__ import annotations

from collections.abc import Callable

import torch

from autometa.backbones.build import Backbone, build_backbone
from autometa.backbones.catalogue import untuned


class BackboneShelf:
    """Networks by name, each built when first asked for: from `states` where given, else pretrained."""

    def __init__(
        self,
        device: str,
        states: dict[str, dict[str, torch.Tensor]] | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.device = device
        self._states = dict(states or {})
        self._report = report
        self._built: dict[str, Backbone] = {}

    def __call__(self, name: str) -> Backbone:
        """The network called `name`."""
        if name not in self._built:
            self._built[name] = build_backbone(name, self.device, self._states.get(name))
            if self._report is not None:
                self._built[name].report = self._report
        return self._built[name]

    def adopt(self, tuned: str, state: dict[str, torch.Tensor], px: int) -> None:
        """Put a tuned copy of a network, by the copy's name, with these weights on the shelf, to run at `px` on the
        same engine."""
        self._states[tuned] = state
        self._built.pop(tuned, None)
        if choice := self(untuned(tuned)).expected(px):
            self(tuned).prefer(choice.name, px)

    def rest(self) -> None:
        """Give back the memory of all engines; what is needed again is built again."""
        for network in self._built.values():
            network.rest()

    def state(self, name: str) -> dict[str, torch.Tensor]:
        """Its weights on the CPU, for saving."""
        return {key: value.cpu() for key, value in self(name).model.state_dict().items()}
