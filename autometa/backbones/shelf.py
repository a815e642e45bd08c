"""The networks of a run, each built once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from autometa.backbones.build import Backbone, build_backbone
from autometa.backbones.engines import EAGER
from autometa.backbones.half_weights import halve, is_rounded, restore, round_weights
from autometa.backbones.view import STAGES, View, network_label
from autometa.core.errors import WeightsError
from autometa.core.files import save_known


class BackboneShelf:
    """The networks of a run by backbone and variant, each built when first asked for: from `states` (by the labels of
    `network_label`) where given, else pretrained. `report` gets a line for each engine that is chosen.
    `layers`: what networks give beside the usual ones, as far as they have it."""

    def __init__(
        self,
        device: str,
        states: dict[str, dict[str, torch.Tensor]] | None = None,
        report: Callable[[str], None] | None = None,
        layers: Iterable[str] = (),
    ) -> None:
        self.device = device
        self._states = {label: restore(state) for label, state in (states or {}).items()}
        self._saved = set(self._states)  # which stay as they were saved
        self._report = report
        self._layers = tuple(layers)
        self._built: dict[str, Backbone] = {}
        self._saved_bytes: dict[str, int] = {}

    def __call__(self, backbone: str, variant: str = "") -> Backbone:
        """The network. WeightsError where it has no weights here."""
        label = network_label(backbone, variant)
        if label not in self._built:
            state = self._states.get(label)
            if variant and state is None:
                raise WeightsError(f"`{label}`: the weights of a variant come with the learner that has it")
            network = build_backbone(backbone, self.device, state, self._layers)
            if label not in self._saved:
                round_weights(network)
            self._built[label] = network
            if self._report is not None:
                self._built[label].report = self._report
            self._states.pop(label, None)  # the network has a copy
        return self._built[label]

    def built(self, backbone: str, variant: str = "") -> Backbone | None:
        """The network, if it was built already."""
        return self._built.get(network_label(backbone, variant))

    def built_or_plain(self, backbone: str, variant: str = "") -> Backbone:
        """The network, or, of a copy that is still to be trained, what it is a copy of; builds only the latter."""
        return self.built(backbone, variant) or self(backbone)

    def whole(self, view: View) -> View:
        """The view with all layers that make up an embedding of its network; as it is where these are the usual
        ones."""
        network = self(view.backbone, view.variant)
        layers = tuple(layer for layer in dict.fromkeys(network.spec.layers) if layer in network.widths)
        return view if set(layers) <= set(STAGES) else replace(view, layers=layers)

    def prefer_engines(self, views: Iterable[View], engines: Mapping[str, str]) -> None:
        """Use the engines that `engine_names` gave for these views, eager PyTorch for others."""
        for view in views:
            engine = engines.get(str(view.plain), EAGER)
            self(view.backbone, view.variant).prefer(engine, view.px)

    def engine_names(self, views: Iterable[View]) -> dict[str, str]:
        """Names of the engines of these views, where one was chosen or is to be expected, by network and size."""
        found = {
            str(one): self(one.backbone, one.variant).engine_name(one.px) for one in {v.plain for v in views}
        }
        return {name: engine for name, engine in sorted(found.items()) if engine is not None}

    def save(self, folder: Path, views: Iterable[View]) -> dict[str, str]:
        """Write the weights of the networks of these views that are not in `folder`, in half precision where they
        embed alike (see `round_weights`); names of all their files, by the labels of `network_label`."""
        saved = {}
        for network in sorted({(view.backbone, view.variant) for view in views}):
            label, state = network_label(*network), partial(self._saved_state, *network)
            saved[label] = save_known(folder, f"backbone-{label}", self(*network).digest, state)
        return saved

    def saved_bytes(self, backbone: str, variant: str = "") -> int:
        """Size of its weights on disk."""
        label = network_label(backbone, variant)
        if label not in self._saved_bytes:
            tensors = self._saved_state(backbone, variant).values()
            self._saved_bytes[label] = sum(tensor.nbytes for tensor in tensors)
        return self._saved_bytes[label]

    def adopt(self, backbone: str, variant: str, state: dict[str, torch.Tensor], px: int) -> None:
        """Add a variant of a backbone with these weights, to run at `px` on the same engine."""
        label = network_label(backbone, variant)
        self._states[label] = state
        self._saved.discard(label)
        self._saved_bytes.pop(label, None)
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

    def _saved_state(self, backbone: str, variant: str) -> dict[str, torch.Tensor]:
        """Its weights as they are saved: halved where they were rounded before."""
        state = self.state(backbone, variant)
        return halve(state) if is_rounded(state) else state
