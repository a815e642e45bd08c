"""The networks of a run, each built once."""

from __future__ import annotations

from collections.abc import Callable

import torch

from autometa.backbones.build import Backbone, build_backbone
from autometa.backbones.view import network_label
from autometa.core.errors import WeightsError


class BackboneShelf:
    """The networks of a run by backbone and variant, each built when first asked for: from `states` (by the labels of
    `network_label`) where given, else pretrained. `report` gets a line for each engine that is chosen."""

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

    def __call__(self, backbone: str, variant: str = "") -> Backbone:
        """The network. WeightsError where it has no weights here."""
        label = network_label(backbone, variant)
        if label not in self._built:
            state = self._states.get(label)
            if variant and state is None:
                raise WeightsError(f"`{label}`: the weights of a variant come with the learner that has it")
            self._built[label] = build_backbone(backbone, self.device, state)
            if self._report is not None:
                self._built[label].report = self._report
        return self._built[label]

    def built(self, backbone: str, variant: str = "") -> Backbone | None:
        """The network, if it was built already."""
        return self._built.get(network_label(backbone, variant))

    def adopt(self, backbone: str, variant: str, state: dict[str, torch.Tensor], px: int) -> None:
        """Add a variant of a backbone with these weights, to run at `px` on the same engine."""
        label = network_label(backbone, variant)
        self._states[label] = state
        self._built.pop(label, None)
        if choice := self(backbone).expected(px):
            self(backbone, variant).prefer(choice.name, px)

    def rest(self) -> None:
        """Give back the memory of all engines; what is needed again is built again."""
        for network in self._built.values():
            network.rest()

    def state(self, backbone: str, variant: str = "") -> dict[str, torch.Tensor]:
        """Its weights on the CPU, for saving."""
        return {key: value.cpu() for key, value in self(backbone, variant).model.state_dict().items()}
