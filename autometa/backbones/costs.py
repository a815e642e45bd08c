"""What a backbone costs, predicted before it is built or downloaded: seconds for an image, and memory.

A network's figures are counted, not measured (`scripts/count_costs.py`): multiply-adds, bytes that operations write,
the most bytes that live at a time, operations. Each engine has a few constants for all networks, and a factor for
each kind of network. They give seconds in relation to another network that was measured on this machine.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from autometa.backbones.catalogue import BackboneSpec

COSTS = Path(__file__).with_name("costs.json")
EAGER = "eager"
MIB = 2**20
WEIGHT_BYTES = 4
"""Of a weight, in float32."""
LOADED_COPIES = 2
"""Of the weights while those of a checkpoint are loaded: in the file's tensors and in the network."""
KINDS = {
    "tf_efficientnet": "inverted",
    "mobilenet": "inverted",
    "regnet": "regnet",
    "resnet": "residual",
    "efficientvit": "efficientvit",
    "fastvit": "fastvit",
    "tiny_vit": "tiny_vit",
    "convnext": "convnext",
    "vit_small_patch16_dinov3": "dinov3",
    "vit": "vit",
    "eva02": "eva",
}
"""Kinds of networks that are about as fast for the same arithmetic, by how their names begin, the longest first where
they begin alike."""
UNCOUNTED_PEAK = 400.0
"""Bytes that live at a time for each pixel of an image, for a network that was not counted: a generous figure."""


@dataclass(frozen=True)
class Counts:
    """Of one image: millions of multiply-adds, `grouped` those of convolutions in groups; MiB that operations write
    (`traffic`), and that live at a time beside the weights (`peak`); operations."""

    dense: float
    grouped: float
    traffic: float
    peak: float
    ops: float


@cache
def read_costs() -> dict[str, Any]:
    """The table: `engines` with their constants, `counts` of the rows of the catalogue."""
    table: dict[str, Any] = json.loads(COSTS.read_text(encoding="utf-8"))
    return table


def kind_of(name: str) -> str:
    """The kind of a network; the empty one where its name does not tell."""
    return next((kind for start, kind in KINDS.items() if name.startswith(start)), "")


def counts_at(spec: BackboneSpec, px: int) -> Counts | None:
    """What an image of a size takes: between and beyond the sizes that were counted along a power of the size. None
    for a network that was not counted."""
    row = read_costs()["counts"].get(spec.name)
    if row is None:
        return None
    small, large = row["px"]
    figures = {}
    for name in ("dense", "grouped", "traffic", "peak", "ops"):
        low, high = row[name]
        power = math.log(high / low) / math.log(large / small) if low > 0 else 0.0
        figures[name] = low * (px / small) ** power
    return Counts(**figures)


def runs_on(spec: BackboneSpec, engine: str) -> bool:
    """Whether an engine is known to serve networks of this kind: else it fails or is refused."""
    constants = read_costs()["engines"].get(engine)
    return constants is None or kind_of(spec.name) not in constants.get("refused", ())


def work_of(spec: BackboneSpec, px: int, engine: str = EAGER) -> float | None:
    """Seconds for an image on the machine where the constants were measured; elsewhere only ratios mean anything.
    None for a network that was not counted. An engine without constants of its own counts as eager PyTorch."""
    counts = counts_at(spec, px)
    if counts is None:
        return None
    engines = read_costs()["engines"]
    constants = engines[engine if engine in engines and runs_on(spec, engine) else EAGER]
    terms = asdict(counts) | {"weights": spec.parameters_m}
    seconds = sum(cost * terms[name] for name, cost in constants["seconds"].items())
    return float(seconds * constants["kinds"].get(kind_of(spec.name), 1.0))


def peak_bytes(spec: BackboneSpec, px: int) -> float:
    """Bytes of tensors float32 that live at a time in a pass, beside the weights, for each image."""
    counts = counts_at(spec, px)
    return UNCOUNTED_PEAK * px**2 if counts is None else MIB * counts.peak


def predict_bytes(spec: BackboneSpec, px: int, batch: int, engine: str = EAGER) -> int:
    """Memory that building a backbone and embedding a batch of images of a size takes at its peak, on an engine."""
    weights = WEIGHT_BYTES * 1e6 * spec.parameters_m
    peak = peak_bytes(spec, px)
    engines = read_costs()["engines"]
    constants = engines[engine if engine in engines else EAGER]["bytes"]
    images = min(batch, constants["chunk"] or batch)
    running = weights * constants["copies"] + constants["activations"] * peak * images
    own = constants["fixed"] + constants["extra"].get(kind_of(spec.name), 0.0)
    return int(max(LOADED_COPIES * weights, running) + MIB * own)
