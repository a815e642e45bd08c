"""A backbone ready to embed images: model, preprocessing, device, and the engine that runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import torch
from timm.data.config import resolve_data_config
from torch import nn

from autometa.backbones.architecture import create_model
from autometa.backbones.batches import (
    FEW,
    LARGEST_GPU_BATCH,
    UNKNOWN_BYTES,
    Images,
    PassMemory,
    batch_size,
    fill_batch,
    to_device,
)
from autometa.backbones.catalogue import BackboneSpec, find_spec
from autometa.backbones.costs import runs_on
from autometa.backbones.engine_choices import EngineChoices
from autometa.backbones.engines import (
    EAGER,
    ENGINES,
    EngineChoice,
    EngineSpec,
    RaceInput,
    split_by_room,
    split_layers,
)
from autometa.backbones.engines.eager import Eager
from autometa.backbones.network import PixelNetwork, Preprocessing
from autometa.backbones.split import list_stages
from autometa.backbones.weights import load_pretrained
from autometa.core.budget import UNLIMITED, TimeBudget
from autometa.core.chunks import fits_memory
from autometa.core.errors import ConfigError
from autometa.core.files import hash_tensors
from autometa.core.machine import free_bytes
from autometa.core.tensor_memory import measure_peak

RACE_IMAGES, LEAST_RACED = 32, 2


class Backbone:
    """Embeds images with one pretrained network; the network serves every resolution.

    It runs eagerly until `prepare` has raced the engines at a size, or `prefer` has named one. An engine
    that fails later is given up for eager; `report` gets a line whenever an engine is chosen or given up.
    """

    def __init__(self, spec: BackboneSpec, model: nn.Module, device: str) -> None:
        self.spec = spec
        model = model.eval().requires_grad_(False).to(device)
        self.model = model.to(memory_format=torch.channels_last)
        self.device = device
        fixed = bool(getattr(model, "pretrained_cfg", {}).get("fixed_input_size")) and spec.patch_px == 1
        config = resolve_data_config({}, model=model)  # type: ignore[no-untyped-call]
        self._fixed_px: int | None = int(config["input_size"][-1]) if fixed else None
        self.report: Callable[[str], None] = logging.getLogger(__name__).info
        self.preprocessing = Preprocessing.of(self.model)
        self.network = PixelNetwork(self.model, self.preprocessing, spec.layers).eval()
        self._eager = Eager(self.network, device)
        self.engines = EngineChoices(spec.name, self._eager, self._tell)
        self._passes = PassMemory(spec)

    @property
    def features(self) -> int:
        """Length of an embedding (the layer `last`)."""
        return self.widths["last"]

    @cached_property
    def widths(self) -> dict[str, int]:
        """Length of each layer that the network offers, in the order of `embed_layers`."""
        size = self.input_px(self.spec.native_px)
        with torch.inference_mode():
            blocks = self.network.blocks(torch.zeros(1, 3, size, size, dtype=torch.uint8, device=self.device))
        return {layer: block.shape[1] for layer, block in zip(self.network.layers, blocks, strict=True)}

    def input_px(self, px: int) -> int:
        """The resolution nearest to `px` that the architecture accepts."""
        if self._fixed_px is not None:
            return self._fixed_px
        patch = self.spec.patch_px
        return max(round(px / patch), 1) * patch

    def embed(self, images: Images, px: int) -> torch.Tensor:
        """uint8 images [n, 3, h, w] → embeddings float32 [n, features] on the CPU."""
        return self.embed_layers(images, px)[:, : self.features].contiguous()

    def embed_layers(self, images: Images, px: int, *, flip: bool = False) -> torch.Tensor:
        """uint8 images [n, 3, h, w] → all layers of `widths` side by side, from one pass, float32
        [n, sum of widths] on the CPU; with `flip`, the mean over the images and their mirror images."""
        batch = self._resized(images, px)
        if not len(batch):
            return torch.empty(0, sum(self.widths.values()))
        output = self._run(batch)
        return (output + self._run(batch.flip(3))) / 2 if flip else output

    def final_maps(self, images: Images, px: int) -> torch.Tensor:
        """uint8 images [n, 3, h, w] → the last feature map float32 [n, c, h', w'], eagerly; ConfigError where
        the network cannot be cut into stages."""
        maps: torch.Tensor = nn.Sequential(*list_stages(self.model))(
            self.network.normalise(self._resized(images, px))
        )
        return maps.float().cpu()

    def pick(self, output: torch.Tensor, layers: tuple[str, ...]) -> torch.Tensor:
        """The embeddings of a view with these layers [n, d], out of what `embed_layers` gave: one layer as
        it is, several divided by their L2 norms. ConfigError where the network has no such layer."""
        if missing := [layer for layer in layers if layer not in self.widths]:
            raise ConfigError(
                f"{self.spec.name} gives no layer {', '.join(missing)}, but {list(self.widths)}"
            )
        blocks = dict(zip(self.widths, split_layers(output, list(self.widths.values())), strict=True))
        if len(layers) == 1:
            return blocks[layers[0]].contiguous()
        return torch.cat([nn.functional.normalize(blocks[layer], dim=1) for layer in layers], dim=1)

    def prepare(
        self,
        images: Images,
        px: int,
        *,
        n_images: int,
        budget: TimeBudget = UNLIMITED,
        engines: Mapping[str, EngineSpec] = ENGINES,
        room_bytes: int | None = None,
    ) -> None:
        """Choose the engine for this size, unless it is chosen: the preferred one, else by a race on some of
        `images` uint8 [n, 3, h, w], which must pay over the `n_images` to embed and end within `budget`.
        Without a race, too, the latest engine that is preferred for another size, or that has clearly won there. Of
        `room_bytes`, the memory left (None: enough), an engine may take its share."""
        size = self.input_px(px)
        if self.engines.at(size) is not None or not len(images):
            if len(images):
                self.engines.wake(size, lambda: self._race_input(images[:RACE_IMAGES], size))
            return
        here = {name: engine for name, engine in engines.items() if self.device in engine.devices}
        serving = {name: engine for name, engine in here.items() if runs_on(self.spec, name)}
        batch = self.batch_size(size, room_bytes)
        fitting, left_out = split_by_room(
            serving,
            self.weight_bytes,
            room_bytes,
            lambda precision: self._batch_in(precision, size, room_bytes),
        )
        few = RACE_IMAGES if room_bytes is None else min(RACE_IMAGES, batch)
        sample = images[: max(few, LEAST_RACED)]

        def choose() -> EngineChoice:
            race_input = self._race_input(fill_batch(sample, self.device, batch), size)
            return self.engines.choose(race_input, n_images, budget, fitting)

        _, choice, error = fits_memory(choose)
        if choice is None:
            choice = EngineChoice(EAGER, self._eager, 0.0, {}, {"race": f"out of memory ({error[:100]})"})
        refused = dict.fromkeys(sorted(here.keys() - serving.keys()), "does not run this kind of network")
        choice = replace(choice, notes=choice.notes | left_out | refused)
        self.engines.keep(size, choice)
        self.report(f"engine for {self.spec.name}@{size}: {choice}")

    def prefer(self, engine: str, px: int) -> None:
        """Use this engine at this size without a race (it is still checked on a few images)."""
        self.engines.prefer(engine, self.input_px(px))

    def reconsider(self, px: int, *, whatever: bool = False) -> None:
        """Choose the engine for this size anew where it is eager PyTorch: for few images, no other is built. Or
        `whatever` it is: it was chosen on other images than are to be embedded."""
        self.engines.forget(self.input_px(px), whatever=whatever)

    def batch_size(self, px: int, host_bytes: int | None = None) -> int:
        """How many images of this size to embed at a time, with so much free memory on the host (None: enough)."""
        size = self.input_px(px)
        return self._batch_in(self.precision(size), size, host_bytes)

    def _batch_in(self, precision: str, size: int, host_bytes: int | None) -> int:
        host_bytes = UNKNOWN_BYTES if host_bytes is None else host_bytes
        return batch_size(self.device, size, host_bytes, self._passes.image_bytes(size, precision))

    def measure_memory(self, images: Images, px: int) -> None:
        """On a GPU with memory of its own, correct what a pass is predicted to take of it by what one takes with
        some of `images` uint8 [n, 3, h, w]; `report` gets a line. They are few enough to run without a CUDA graph,
        whose memory is there all the time; the compiled network, which pads them, counts as eager PyTorch."""
        if free_bytes(self.device) is None:
            return
        size, few = self.input_px(px), images[: LARGEST_GPU_BATCH // FEW]
        batch, precision = self._resized(few, size), self.precision(size)
        run = self._run if precision == "half" else self._eager
        run(batch)
        took = measure_peak(lambda: run(batch), self.device)
        line = self._passes.correct(len(few), size, precision, took)
        self.report(f"{self.spec.name}: {line}")

    def choice(self, px: int) -> EngineChoice | None:
        """What was chosen for this size; None where nothing was."""
        return self.engines.at(self.input_px(px))

    def expected(self, px: int) -> EngineChoice | None:
        """What was chosen for this size, else for the latest other size; None before the first race."""
        return self.engines.expected(self.input_px(px))

    def engine_name(self, px: int) -> str | None:
        """Name of the engine that is chosen, to be expected or preferred for this size; None where there is none."""
        return self.engines.name_at(self.input_px(px))

    def is_ready(self, px: int) -> bool:
        """Whether the engine for this size is chosen, and built."""
        choice = self.choice(px)
        return choice is not None and choice.engine is not None

    def rest(self) -> None:
        """Give back the memory of the engines, but not what was chosen: each is built anew when it is next needed."""
        self.engines.rest()

    def description(self, px: int, *, flip: bool) -> dict[str, Any]:
        """Everything that decides what `embed_layers` gives for an image: what caches go by."""
        return {
            "weights": self.digest,
            "architecture": self.spec.timm_name,
            "layers": list(self.widths),
            "px": self.input_px(px),
            "preprocessing": asdict(self.preprocessing),
            "flip": flip,
            "precision": self.precision(px),
        }

    def precision(self, px: int) -> str:
        """Of the engine that is chosen for this size; float32 where none is."""
        choice = self.choice(px)
        return ENGINES[choice.name].precision if choice and choice.name in ENGINES else "float32"

    @cached_property
    def digest(self) -> str:
        """Of the weights, which never change."""
        return hash_tensors(self.model.state_dict())

    @cached_property
    def weight_bytes(self) -> int:
        """Size of the weights."""
        return sum(tensor.nbytes for tensor in self.model.state_dict().values())

    def _resized(self, images: Images, px: int) -> torch.Tensor:
        return self.preprocessing.resize(to_device(images, self.device), self.input_px(px))

    def _race_input(self, images: Images, size: int) -> RaceInput:
        return RaceInput(
            self.network, size, self.device, self._resized(images, size), [*self.widths.values()]
        )

    def _tell(self, line: str) -> None:
        self.report(line)  # which may be another one by then

    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        return self.engines.run(batch, lambda: self._race_input(batch[:RACE_IMAGES], batch.shape[-1]))


def build_backbone(
    name: str, device: str, state: dict[str, torch.Tensor] | None = None, layers: tuple[str, ...] = ()
) -> Backbone:
    """The backbone called `name`, pretrained, or with the weights in `state` (of a saved learner); it also gives
    those of `layers` that it has. WeightsError where timm does not know it or no weights can be had."""
    spec = replace(find_spec(name), layers=find_spec(name).layers + layers)
    model = create_model(spec)
    if state is None:
        load_pretrained(spec, model)
    else:
        model.load_state_dict(state, strict=True)
    return Backbone(spec, model, device)
