"""A way to look at images: which network, at which size, which of its layers."""

from __future__ import annotations

from dataclasses import dataclass

from autometa.core.errors import ConfigError

GENERALISED, LARGEST = "_gem", "_max"
LAYERS = (
    "last",
    "stage3",
    "stage4",
    "stage3_gem",
    "stage4_gem",
    "stage3_max",
    "stage4_max",
    "class",
    "patches",
    "two_thirds",
    "five_sixths",
)
"""`last`: what the network gives; `stage4`, `stage3`: its last and last but one feature maps, averaged over
the image (of a transformer: the patches after the last block and after three quarters of the blocks); `stage4_gem`,
`stage3_gem`: their generalised means; `stage4_max`, `stage3_max`: their largest values. Of transformers only:
`class` and `patches` are the class token and the mean of the patches after the last norm, `two_thirds` and
`five_sixths` the patches after so many of the blocks, averaged."""
LAST = ("last",)
STAGES = ("last", "stage4", "stage3")
"""Layers that make up an embedding together where one is not enough: glyphs and textures prefer earlier ones. A
network gives these unless others are asked for."""

TUNED = "tuned"
"""The variant of a backbone whose last stages were trained on meta-train classes."""

Source = tuple[str, str, int, bool]
"""One pass of a network: backbone, variant, size, whether mirrored images are averaged in."""


def network_label(backbone: str, variant: str = "") -> str:
    """What a network is called in files and messages: `BACKBONE`, or `BACKBONE+VARIANT`."""
    return f"{backbone}+{variant}" if variant else backbone


@dataclass(frozen=True, order=True)
class View:
    """A backbone at a resolution. `variant` names other weights than the pretrained ones (`TUNED`). `layers` are
    those that make up an embedding, of `LAYERS`; `flip` averages the embeddings of an image and its mirror image,
    at twice the price (a mirrored glyph is another glyph: only after a test on validation). Views that differ in
    `layers` only cost one pass together.

    A single layer is given as it is. Several are divided by their L2 norm each, then concatenated, so that none
    drowns the others. ConfigError for a layer that is not known.
    """

    backbone: str
    px: int
    layers: tuple[str, ...] = LAST
    flip: bool = False
    variant: str = ""

    def __post_init__(self) -> None:
        if not self.layers or not set(self.layers) <= set(LAYERS) or len(set(self.layers)) < len(self.layers):
            raise ConfigError(f"layers = {self.layers!r}: name some of {', '.join(LAYERS)}, each once")

    def __str__(self) -> str:
        layers = "" if self.layers == LAST else f":{'+'.join(self.layers)}"
        return f"{self.label}@{self.px}{layers}{':flip' if self.flip else ''}"

    @classmethod
    def of(cls, name: str) -> View:
        """The view that calls itself so: `BACKBONE@PX` or `BACKBONE+VARIANT@PX`, then `:LAYER+LAYER` and `:flip`.
        ConfigError where none does."""
        source, *marks = name.split(":")
        label, _, px = source.rpartition("@")
        backbone, _, variant = label.partition("+")
        layers = next((tuple(mark.split("+")) for mark in marks if mark != "flip"), LAST)
        if not backbone or not px.isdigit():
            raise ConfigError(
                f"view = {name!r}: write BACKBONE@PX, as in {cls('tf_efficientnet_lite0', 128)}"
            )
        return cls(backbone, int(px), layers, "flip" in marks, variant)

    @property
    def label(self) -> str:
        """What its network is called."""
        return network_label(self.backbone, self.variant)

    @property
    def plain(self) -> View:
        """The same network at the same size: its last layer, without mirrored images."""
        return View(self.backbone, self.px, variant=self.variant)

    @property
    def source(self) -> Source:
        """The pass of the network that serves this view."""
        return self.backbone, self.variant, self.px, self.flip
