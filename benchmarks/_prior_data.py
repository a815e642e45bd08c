"""Features that `priors.py` measures with: a sample of each dataset, seen by the backbones that come in packages."""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from autometa.backbones import CATALOGUE, Backbone, View, build_backbone
from autometa.backbones.catalogue import is_packaged
from autometa.data.images import ImagePool
from ingestion import decode_image

SIZES = {"tf_efficientnet_lite0": (128, 224), "vit_small_patch14_dinov2.depth10": (126,)}
OTHER_SIZES = (128,)
"""Sizes in which each backbone is asked, and those of backbones that are not named."""
PHOTO_PX, USUAL_PX = 256, 128
"""Sizes at which images are prepared: those of a dataset whose files are larger, and those of all others."""
CHUNK = 64


@dataclass(frozen=True)
class Sample:
    """Some images of a dataset, as a pool, and what each backbone sees in them at each size: all layers side by side,
    float32 [n, sum of widths], with the widths of the layers."""

    name: str
    pool: ImagePool
    features: dict[View, dict[str, torch.Tensor]]
    digests: tuple[str, ...]

    def joined(self, view: View, layers: tuple[str, ...]) -> torch.Tensor:
        """Embeddings float32 [n, d] of the layers that there are, each of unit length where they are several."""
        blocks = [self.features[view][layer] for layer in layers if layer in self.features[view]]
        if len(blocks) == 1:
            return blocks[0]
        return torch.cat([torch.nn.functional.normalize(block, dim=1) for block in blocks], dim=1)


def list_views() -> list[View]:
    """The packaged backbones at all sizes up to that of their pretraining, the usual first view first."""
    specs = [spec for spec in CATALOGUE.values() if is_packaged(spec)]
    views = [View(spec.name, px) for spec in specs for px in SIZES.get(spec.name, OTHER_SIZES)]
    return sorted(views, key=lambda view: (view.backbone != views[0].backbone, abs(view.px - USUAL_PX)))


def read_pool(folder: Path, classes: int, per_class: int, seed: int = 0) -> tuple[ImagePool, list[str]]:
    """Up to so many images of up to so many classes of a dataset in Meta-Album layout; the digests of their files."""
    rng = np.random.default_rng(seed)
    with (folder / "labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = sorted({row["CATEGORY"] for row in rows})
    chosen = sorted(rng.permutation(names)[:classes].tolist())
    labels, pixels, digests = [], [], []
    px = PHOTO_PX if folder.name.endswith("_320") else USUAL_PX
    for place, name in enumerate(chosen):
        files = [row["FILE_NAME"] for row in rows if row["CATEGORY"] == name]
        for file in sorted(rng.permutation(files)[:per_class].tolist()):
            content = (folder / "images" / file).read_bytes()
            pixels.append(decode_image(content, px))
            digests.append(hashlib.sha256(content).hexdigest()[:16])
            labels.append(place)
    datasets = np.zeros(len(chosen), np.int64)
    return ImagePool(np.stack(pixels), np.array(labels), datasets, (folder.name,)), digests


def read_sample(folder: Path, cache: Path, classes: int, per_class: int, views: Sequence[View]) -> Sample:
    """A sample with all its features, from the cache where they are there."""
    pool, digests = read_pool(folder, classes, per_class)
    cache.mkdir(parents=True, exist_ok=True)
    features, networks = {}, {}
    for view in views:
        file = cache / f"{folder.name}-{classes}-{per_class}-{view}.safetensors"
        if not file.exists():
            if view.backbone not in networks:
                networks[view.backbone] = build_backbone(view.backbone, "cpu")
            began = time.monotonic()
            save_file(_embed(networks[view.backbone], pool.images, view.px), file)
            print(
                f"{folder.name}: {len(pool.images)} images in {view}, {time.monotonic() - began:.1f} s",
                flush=True,
            )
        features[view] = load_file(file)
    return Sample(folder.name, pool, features, tuple(digests))


def _embed(network: Backbone, images: NDArray[np.uint8], px: int) -> dict[str, torch.Tensor]:
    """What a network sees at a size, layer by layer."""
    network.prepare(images, px, n_images=10 * len(images))
    parts = [network.embed_layers(images[at : at + CHUNK], px) for at in range(0, len(images), CHUNK)]
    blocks = torch.split(torch.cat(parts), list(network.widths.values()), dim=1)
    return {layer: block.contiguous() for layer, block in zip(network.widths, blocks, strict=True)}
