"""Datasets as features, and how results are timed and reported, for the benchmark of the heads."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autometa.backbones import build_backbone
from autometa.data.images import ImagePool
from autometa.heads import FeatureStatistics
from ingestion import decode_image


@dataclass(frozen=True)
class Cached:
    """A dataset as features float32 [n, d] with class labels [n]."""

    name: str
    features: torch.Tensor
    labels: np.ndarray[Any, Any]

    def split(self, seed: int) -> tuple[FeatureStatistics, np.ndarray[Any, Any]]:
        """60 % of the classes to fit metrics on, and the ids of the others."""
        order = np.random.default_rng(seed).permutation(self.labels.max() + 1)
        cut = int(0.6 * len(order))
        fit = np.isin(self.labels, order[:cut])
        statistics = FeatureStatistics(self.features[fit], torch.from_numpy(self.labels[fit]))
        return statistics, np.sort(order[cut:])

    @property
    def pool(self) -> ImagePool:
        """A pool to draw episodes from; its images are blank."""
        classes = int(self.labels.max()) + 1
        blank = np.zeros((len(self.labels), 3, 1, 1), np.uint8)
        return ImagePool(blank, self.labels, np.zeros(classes, np.int64), (self.name,))


def embedded(folder: Path) -> Cached:
    """A Meta-Album dataset through EfficientNet-lite0 at 128 px."""
    with (folder / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    classes = sorted({row["CATEGORY"] for row in rows})
    network = build_backbone("tf_efficientnet_lite0", "cpu")
    features = []
    for start in range(0, len(rows), 64):
        files = [folder / "images" / row["FILE_NAME"] for row in rows[start : start + 64]]
        pixels = [decode_image(file.read_bytes(), 128) for file in files]
        features.append(network.embed(np.stack(pixels), 128))
    labels = np.array([classes.index(row["CATEGORY"]) for row in rows], dtype=np.int64)
    return Cached(folder.name, torch.cat(features), labels)


def made_up(classes: int = 60, each: int = 30, d: int = 1280) -> Cached:
    """Non-negative features whose classes are about as hard to distinguish as those of icons."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(each)
    means = torch.randn(classes, d, generator=generator) * 0.35
    features = (means[labels] + torch.randn(len(labels), d, generator=generator)).clamp(min=0)
    return Cached("made-up", features, labels.numpy())


def seconds(work: Callable[[], Any]) -> float:
    """The shorter of two runs."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


class Report:
    """Prints results as they come and collects them for `--json`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        reference: float | None = None,
        ratio: float | None = None,
        *,
        note: str = "",
    ) -> None:
        """One result; `ratio` says how many times better than `reference`."""
        self.rows.append({"name": name, "value": value, "unit": unit, "reference": reference, "ratio": ratio})
        against = "" if reference is None else f"  (reference {reference:.4g}"
        against += f", ratio {ratio:.4g})" if ratio is not None else ")" if against else ""
        print(f"{name:<44} {value:>9.4g} {unit}{against}  {note}", flush=True)
