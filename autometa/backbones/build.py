"""A backbone ready to embed images: model, preprocessing, device, and the engine that runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data.config import resolve_data_config
from torch import nn

from autometa.backbones.architecture import create_model
from autometa.backbones.batches import batch_size, fill_batch
from autometa.backbones.catalogue import BackboneSpec, find_spec
from autometa.backbones.costs import runs_on
from autometa.backbones.engines import (
    EAGER,
    ENGINES,
    Engine,
    EngineChoice,
    EngineSpec,
    Race,
    RaceInput,
    build_checked,
    split_by_room,
    split_layers,
)
from autometa.backbones.engines.eager import Eager
from autometa.backbones.network import PixelNetwork, Preprocessing
from autometa.backbones.split import list_stages
from autometa.backbones.weights import load_pretrained
from autometa.core.budget import UNLIMITED, TimeBudget, stopwatch
from autometa.core.chunks import fits_memory, is_out_of_memory
from autometa.core.errors import ConfigError, WeightsError
from autometa.core.files import hash_tensors
from autometa.core.machine import starts_cold

RACE_IMAGES, LEAST_RACED = 32, 2
WORTH_BUILDING = 300
"""So few images are embedded eagerly while another engine is built."""

Images = NDArray[np.uint8] | torch.Tensor


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
        self._choices: dict[int, EngineChoice] = {}
        self._preferred: dict[int, str] = {}
        self._usual: str | None = None

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
        if size in self._choices or not len(images):
            self._wake(size, images)
            return
        serving = {name: engine for name, engine in engines.items() if runs_on(self.spec, name)}
        fitting, left_out = split_by_room(serving, self.weight_bytes, room_bytes)
        few = (
            RACE_IMAGES if room_bytes is None else min(RACE_IMAGES, batch_size(self.device, size, room_bytes))
        )
        sample = images[: max(few, LEAST_RACED)]
        _, choice, error = fits_memory(lambda: self._begin(sample, size, n_images, budget, fitting))
        if choice is None:
            choice = EngineChoice(EAGER, self._eager, 0.0, {}, {"race": f"out of memory ({error[:100]})"})
        self._choices[size] = choice = replace(choice, notes=choice.notes | left_out)
        self.report(f"engine for {self.spec.name}@{size}: {choice}")

    def _begin(
        self, images: Images, size: int, n_images: int, budget: TimeBudget, engines: Mapping[str, EngineSpec]
    ) -> EngineChoice:
        """The engine for a size; on a device that starts cold, the first call at a size counts as building it, since
        it is made in every process."""
        elapsed = stopwatch()
        race_input = self._race_input(fill_batch(images, self.device, size), size)
        start_s = 0.0
        if starts_cold(self.device):
            self._eager(race_input.to_check)
            start_s = elapsed()
        choice = self._choose(race_input, n_images, budget, engines)
        return replace(choice, build_s=choice.build_s + start_s)

    def _choose(
        self, race_input: RaceInput, n_images: int, budget: TimeBudget, engines: Mapping[str, EngineSpec]
    ) -> EngineChoice:
        """The engine for the size of the race: the preferred one, the clear winner at another size, or the winner."""
        if self._usual is not None:
            usual = self._usual if n_images >= WORTH_BUILDING else EAGER
            return self._build_checked(self._preferred.get(race_input.px, usual), race_input, engines)
        raced = next((choice for choice in reversed(self._choices.values()) if choice.image_s), None)
        worth = raced is not None and raced.clear and n_images >= WORTH_BUILDING
        if raced is not None and worth and budget.fits(raced.build_s):
            return self._build_checked(raced.name, race_input, engines)
        return Race(race_input, self._eager, n_images=n_images, budget=budget, earlier=raced).run(engines)

    def prefer(self, engine: str, px: int) -> None:
        """Use this engine at this size without a race (it is still checked on a few images)."""
        self._preferred[self.input_px(px)] = self._usual = engine

    def reconsider(self, px: int, *, whatever: bool = False) -> None:
        """Choose the engine for this size anew where it is eager PyTorch: for few images, no other is built. Or
        `whatever` it is: it was chosen on other images than are to be embedded."""
        size = self.input_px(px)
        if size in self._choices and (whatever or self._choices[size].name == EAGER):
            del self._choices[size]

    def choice(self, px: int) -> EngineChoice | None:
        """What was chosen for this size; None where nothing was."""
        return self._choices.get(self.input_px(px))

    def expected(self, px: int) -> EngineChoice | None:
        """What was chosen for this size, else for the latest other size; None before the first race."""
        latest = next(reversed(self._choices.values()), None)
        return self._choices.get(self.input_px(px), latest)

    def engine_name(self, px: int) -> str | None:
        """Name of the engine that is chosen, to be expected or preferred for this size; None where there is none."""
        choice = self.expected(px)
        return choice.name if choice else self._preferred.get(self.input_px(px))

    def is_ready(self, px: int) -> bool:
        """Whether the engine for this size is chosen, and built."""
        choice = self.choice(px)
        return choice is not None and choice.engine is not None

    def rest(self) -> None:
        """Give back the memory of the engines, but not what was chosen: each is built anew when it is next needed."""
        self._choices = {
            size: choice if choice.name == EAGER else replace(choice, engine=None)
            for size, choice in self._choices.items()
        }

    def description(self, px: int, *, flip: bool) -> dict[str, Any]:
        """Everything that decides what `embed_layers` gives for an image: what caches go by."""
        choice = self.choice(px)
        return {
            "weights": self.digest,
            "architecture": self.spec.timm_name,
            "layers": list(self.widths),
            "px": self.input_px(px),
            "preprocessing": asdict(self.preprocessing),
            "flip": flip,
            "precision": ENGINES[choice.name].precision if choice and choice.name in ENGINES else "float32",
        }

    @cached_property
    def digest(self) -> str:
        """Of the weights, which never change."""
        return hash_tensors(self.model.state_dict())

    @cached_property
    def weight_bytes(self) -> int:
        """Size of the weights."""
        return sum(tensor.nbytes for tensor in self.model.state_dict().values())

    def _resized(self, images: Images, px: int) -> torch.Tensor:
        batch = torch.as_tensor(np.array(images) if isinstance(images, np.ndarray) else images)
        return self.preprocessing.resize(batch.to(self.device), self.input_px(px))

    def _race_input(self, images: Images, size: int) -> RaceInput:
        return RaceInput(
            self.network, size, self.device, self._resized(images, size), [*self.widths.values()]
        )

    def _build_checked(
        self, name: str, race_input: RaceInput, engines: Mapping[str, EngineSpec]
    ) -> EngineChoice:
        elapsed, notes = stopwatch(), dict[str, str]()
        while name in engines and name != EAGER and self.device in engines[name].devices:
            few = self._choices or engines[name].precision == "float32"  # else as thorough as a race
            images = race_input.to_check if few else race_input.images
            engine = build_checked(engines[name], race_input, self._eager(images))
            if not isinstance(engine, str):
                return EngineChoice(name, engine, elapsed(), {}, notes)
            notes[name] = engine
            name = engines[name].instead or EAGER
        return EngineChoice(EAGER, self._eager, 0.0, {}, notes)

    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        size = batch.shape[-1]
        choice = self._choices.get(size)
        if choice is None or choice.name == EAGER:
            return self._eager(batch)
        engine = choice.engine or self._wake(size, batch)
        try:
            return engine(batch)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self.report(
                f"engine {choice.name} of {self.spec.name}@{size} failed ({error}); eager from here on"
            )
            self._choices[size] = EngineChoice(EAGER, self._eager, 0.0, {}, {choice.name: "failed in use"})
        return self._eager(batch)

    def _wake(self, size: int, images: Images) -> Engine:
        """The engine for a size, built anew after a rest, and checked on some of the images."""
        choice = self._choices.get(size)
        if choice is not None and choice.engine is None and len(images):
            built = self._build_checked(choice.name, self._race_input(images[:RACE_IMAGES], size), ENGINES)
            choice = replace(choice, engine=built.engine) if built.name == choice.name else built
            self._choices[size] = choice
        return (choice.engine if choice else None) or self._eager


def build_backbone(
    name: str, device: str, state: dict[str, torch.Tensor] | None = None, layers: tuple[str, ...] = ()
) -> Backbone:
    """The backbone called `name`, pretrained, or with the weights in `state` (of a saved learner); it also gives
    those of `layers` that it has. WeightsError where timm does not know it or no weights can be had."""
    spec = replace(find_spec(name), layers=find_spec(name).layers + layers)
    try:
        model = create_model(spec)
    except RuntimeError as error:
        raise WeightsError(f"timm knows no model `{spec.timm_name}`") from error
    if state is None:
        load_pretrained(spec, model)
    else:
        model.load_state_dict(state, strict=True)
    return Backbone(spec, model, device)
