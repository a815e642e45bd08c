"""Encoders: what turns images into feature maps, and which part of it is trained.

`prepare` does once per image what never changes (resizing, a frozen trunk); calling the encoder does the
rest, with gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from torch import nn

from autometa.backbones import Backbone, Normalise, Preprocessing, build_backbone, list_stages, split
from autometa.core.budget import UNLIMITED, TimeBudget
from autometa.core.chunks import in_chunks
from autometa.core.machine import starts_cold
from autometa.learners.frozen_part import FrozenPart, freeze_backbone, freeze_trunk, move_backbone
from autometa.learners.networks import PointwiseConv2d, build_network
from autometa.learners.storage import MEMORY, Storage
from autometa.learners.unregistered import Unregistered

SCRATCH = {"conv4": 28, "resnet12": 84, "mlp": 28}
"""Networks that are trained from scratch, with the size of images that the field takes for each."""
BACKBONE_PX = 128
"""Of images for pretrained networks, where none is given."""
CHUNK, GPU_CHUNK = 64, 256
"""Images that are prepared at a time."""
ADAPTER_WIDTH = 256
LENGTH = 4.0
"""Length of the embeddings of pretrained networks."""
WORTH_A_RACE = 300
"""Images from which on choosing the fastest engine pays."""
MIDDLE = 0.5
"""Mean and standard deviation by which networks trained from scratch normalise pixels in 0..1."""

Images = NDArray[np.uint8]


class EncoderSpec(BaseModel):
    """`network`: of `SCRATCH`, or a backbone. `px`: size of the images; None, the default, becomes what is usual
    for the network. `channels`, `pools`, `drop_block`: width, number of halvings, and rate of DropBlock after the
    last two blocks, of a network from scratch. `trainable`: how many of the last stages of a backbone are trained,
    `all` of it, or 0: it is frozen and followed by a small adapter. `maps`: it gives feature maps, not only their
    mean over the image. `mlp` halves nothing. A field without effect is refused, unless it has its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str = "conv4"
    px: int = Field(default=None, ge=8, validate_default=True)
    channels: int = Field(default=64, ge=1)
    pools: int = Field(default=4, ge=0, le=4)
    drop_block: float = Field(default=0.0, ge=0, lt=1)
    trainable: int | Literal["all"] = 0
    maps: bool = False

    @field_validator("px", mode="before")
    @classmethod
    def _fill_px(cls, value: object, info: ValidationInfo) -> object:
        return SCRATCH.get(info.data.get("network", ""), BACKBONE_PX) if value is None else value

    @model_validator(mode="after")
    def _check_effect(self) -> Self:
        kind = "trained from scratch" if self.network in SCRATCH else "pretrained"
        for name in list_without_effect(self.network):
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(f"{name}: {value} has no effect on {self.network} ({kind}): leave it out")
        return self


def list_without_effect(network: str) -> tuple[str, ...]:
    """The fields of an `EncoderSpec` that change nothing with this network."""
    return ("trainable",) if network in SCRATCH else ("channels", "pools", "drop_block")


class Encoder(nn.Module):
    """What `prepare` gives, [n, ...] → feature maps float32 [n, c, h, w]; `shape` is (c, h, w)."""

    shape: tuple[int, int, int]
    frozen: FrozenPart | None = None
    """What `prepare` runs on an engine, if there is such a part."""

    @property
    def width(self) -> int:
        """Length of `vectors`."""
        return self.shape[0]

    def vectors(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs [n, ...] → embeddings float32 [n, width]: the mean of the map, as in pretraining, scaled to
        `LENGTH`, which leaves squared distances that a softmax can use."""
        return LENGTH * nn.functional.normalize(self(inputs).mean((2, 3)), dim=1)

    def backbone_state(self) -> dict[str, torch.Tensor] | None:
        """Weights of the backbone, trained or not, that `build_encoder` wants back; None where the state of
        the encoder is all there is."""
        return None

    def prepare(
        self, images: Images, budget: TimeBudget = UNLIMITED, storage: Storage = MEMORY
    ) -> torch.Tensor:
        """uint8 images [n, 3, h, w] → inputs [n, ...] on the CPU, kept in `storage`; a frozen network runs
        where the encoder's parameters are. BudgetExhausted where time or room runs out."""
        raise NotImplementedError


class ScratchEncoder(Encoder):
    """A small network for images of `px`, trained from its first layer on."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self._px = spec.px
        self._resize = Preprocessing((MIDDLE,) * 3, (MIDDLE,) * 3, "bilinear").resize
        self.normalise = Normalise((MIDDLE,) * 3, (MIDDLE,) * 3)
        network = build_network(spec.network, spec.px, spec.channels, spec.pools, spec.drop_block)
        # convolutions go by the layout of their weights, inside vmap too
        self.network = network.to(memory_format=torch.channels_last)
        self.shape = _measure_shape(self, torch.zeros(2, 3, spec.px, spec.px, dtype=torch.uint8))
        self._flat = spec.network == "conv4"

    @property
    def width(self) -> int:
        """Length of `vectors`."""
        return math.prod(self.shape) if self._flat else self.shape[0]

    def vectors(self, inputs: torch.Tensor) -> torch.Tensor:
        """Pixels [n, 3, px, px] → embeddings [n, width]: the map of Conv-4 as it is (Snell et al. 2017), the
        mean of that of ResNet-12 (Lee et al. 2019)."""
        maps = self(inputs)
        return maps.flatten(1) if self._flat else maps.mean((2, 3))

    def prepare(
        self, images: Images, budget: TimeBudget = UNLIMITED, storage: Storage = MEMORY
    ) -> torch.Tensor:
        """uint8 images [n, 3, h, w] → uint8 [n, 3, px, px]."""
        return prepare_in_chunks(lambda chunk: self._resize(chunk, self._px), images, budget, storage)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, px, px] → maps [n, c, h, w]."""
        maps: torch.Tensor = self.network(self.normalise(inputs))
        return maps


class TailEncoder(Encoder):
    """The last stages of a backbone; the trunk before them is frozen and no part of the state. Batch norm
    keeps the statistics of pretraining."""

    def __init__(self, backbone: Backbone, spec: EncoderSpec) -> None:
        super().__init__()
        self._px = backbone.input_px(spec.px)
        self._resize = backbone.preprocessing.resize
        model = backbone.model.requires_grad_(True)
        self._model = Unregistered(model)
        if spec.trainable == "all":
            normalise = Normalise(backbone.preprocessing.mean, backbone.preprocessing.std)
            self.tail = nn.Sequential(normalise, split(model, len(list_stages(model)))[1])
        else:
            self.tail = split(model, spec.trainable)[1]
            self.frozen = freeze_trunk(backbone, spec.trainable, spec.px)
        self.shape = _measure_shape(self, self.prepare(np.zeros((2, 3, spec.px, spec.px), np.uint8)))

    def prepare(
        self, images: Images, budget: TimeBudget = UNLIMITED, storage: Storage = MEMORY
    ) -> torch.Tensor:
        """uint8 images [n, 3, h, w] → activations of the trunk float16 [n, c, h, w] (clamped to its range),
        or uint8 pixels where everything is trained."""
        trunk, device = self.frozen, get_device(self)
        if trunk is None:
            return prepare_in_chunks(lambda chunk: self._resize(chunk, self._px), images, budget, storage)
        work = lambda chunk: to_float16(trunk.run(chunk, device))  # noqa: E731
        return prepare_in_chunks(work, images, budget, storage, chunk_on(device))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """What `prepare` gives → maps float32 [n, c, h, w]."""
        maps: torch.Tensor = self.tail(inputs if inputs.dtype == torch.uint8 else inputs.float())
        return maps

    def backbone_state(self) -> dict[str, torch.Tensor]:
        """The whole network, as it is now."""
        return {name: tensor.cpu() for name, tensor in self._model.network.state_dict().items()}

    def train(self, mode: bool = True) -> TailEncoder:
        """As for every module, but batch norm stays as it was pretrained."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class FrozenEncoder(Encoder):
    """A frozen backbone and a small residual adapter that starts as the identity."""

    def __init__(self, backbone: Backbone, spec: EncoderSpec) -> None:
        super().__init__()
        self._backbone, self._px = Unregistered(backbone), spec.px
        self.frozen = None if spec.maps else freeze_backbone(backbone, spec.px)
        example = self.prepare(np.zeros((2, 3, spec.px, spec.px), np.uint8))
        channels = example.shape[1]
        last = PointwiseConv2d(ADAPTER_WIDTH, channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(cast(torch.Tensor, last.bias))
        self.adapter = nn.Sequential(PointwiseConv2d(channels, ADAPTER_WIDTH), nn.ReLU(), last)
        self.shape = _measure_shape(self, example)

    def prepare(
        self, images: Images, budget: TimeBudget = UNLIMITED, storage: Storage = MEMORY
    ) -> torch.Tensor:
        """uint8 images [n, 3, h, w] → features of the backbone: float32 [n, d, 1, 1], of length √d so that
        their numbers are of order one, or maps float16 [n, c, h, w] where maps are wanted."""
        frozen, device = self.frozen, get_device(self)
        backbone = self._backbone.network = move_backbone(self._backbone.network, device)
        if frozen is None:
            work = lambda chunk: to_float16(backbone.final_maps(chunk, self._px))  # noqa: E731
            return prepare_in_chunks(work, images, budget, storage, chunk_on(device))
        frozen.backbone = backbone
        if frozen.engine is None and len(images) >= WORTH_A_RACE:
            backbone.prepare(images[:CHUNK], self._px, n_images=len(images), budget=budget)

        def embed(chunk: torch.Tensor) -> torch.Tensor:
            features = frozen.run(chunk, device)
            return nn.functional.normalize(features, dim=1)[..., None, None] * features.shape[1] ** 0.5

        return prepare_in_chunks(embed, images, budget, storage, chunk_on(device))

    def backbone_state(self) -> dict[str, torch.Tensor]:
        """The frozen network."""
        return {name: tensor.cpu() for name, tensor in self._backbone.network.model.state_dict().items()}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """What `prepare` gives → the same shape, float32."""
        inputs = inputs.float()
        return inputs + self.adapter(inputs)


def build_encoder(spec: EncoderSpec, weights: dict[str, torch.Tensor] | None = None) -> Encoder:
    """The encoder of a spec on the CPU; a backbone is pretrained, or gets `weights` of a saved learner.

    WeightsError where a backbone has no weights here, ConfigError where it cannot be split.
    """
    if spec.network in SCRATCH:
        return ScratchEncoder(spec)
    backbone = build_backbone(spec.network, "cpu", weights)
    return FrozenEncoder(backbone, spec) if spec.trainable == 0 else TailEncoder(backbone, spec)


def prepare_in_chunks(
    work: Callable[[torch.Tensor], torch.Tensor],
    images: Images,
    budget: TimeBudget,
    storage: Storage,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """`work` on uint8 tensors of up to `chunk` images, fewer where memory runs out, without gradients;
    BudgetExhausted when time is out, or memory for a single image."""
    result: list[torch.Tensor] = []

    def prepare(start: int, stop: int) -> None:
        budget.check("preparing images for an encoder")
        with torch.inference_mode():
            # a copy: images of a pool may be read-only, or rotated views
            done = work(torch.from_numpy(np.array(images[start:stop], order="C")))
        if not result:  # written to in place: a list of parts would need twice the memory
            result.append(storage.empty((len(images), *done.shape[1:]), done.dtype))
        result[0][start : start + len(done)] = done

    if len(images):
        in_chunks(prepare, len(images), chunk)
    else:
        prepare(0, 0)  # the shape of what there is none of
    return result[0]


def chunk_on(device: torch.device) -> int:
    """How many images to prepare at a time on a device."""
    return GPU_CHUNK if starts_cold(device.type) else CHUNK


def get_device(module: nn.Module) -> torch.device:
    """Where its parameters are; the CPU for a module that has none yet."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def to_float16(maps: torch.Tensor) -> torch.Tensor:
    """Float16, clamped to its range."""
    most = torch.finfo(torch.float16).max
    return maps.clamp(-most, most).half()


def _measure_shape(encoder: Encoder, inputs: torch.Tensor) -> tuple[int, int, int]:
    encoder.eval()
    with torch.no_grad():
        channels, height, width = encoder(inputs.clone()).shape[1:]
    encoder.train()
    return int(channels), int(height), int(width)
