"""Embed once: features of images, kept per view, computed in chunks that fit the memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import Backbone, Source, View
from autometa.backbones.embedding_parts import Pass
from autometa.backbones.engines import EAGER
from autometa.backbones.feature_files import FeatureFiles, FeatureKind
from autometa.backbones.feature_table import FeatureTable
from autometa.backbones.pending_features import PendingFeatures
from autometa.backbones.shared_features import SharedFeatures
from autometa.backbones.spread_features import SpreadFeatures, Work
from autometa.core.budget import UNLIMITED, MemoryBudget, TimeBudget, stopwatch
from autometa.core.chunks import in_chunks
from autometa.core.speed import Speed
from autometa.data.images import hash_images


class FeatureStore:
    """Features by view and image key, float32 on the CPU. Each image is embedded once per backbone and size: a pass
    gives all layers, so that views that differ in layers only share it.

    `backbone_of` gives the network of a backbone and a variant; what an image costs is measured as it goes. `disk`
    keeps the features for other runs (None: memory only). `ahead`: how many images will come besides those of a
    call; it tells whether a faster engine pays. `shared`: other runs of a grid of budgets have embedded images
    already, which cost as much as if they were embedded here. `spread`: who embeds many images beside this process,
    not together with `shared` (ValueError).
    """

    def __init__(
        self,
        backbone_of: Callable[..., Backbone],
        memory: MemoryBudget,
        disk: FeatureFiles | None = None,
        ahead: int = 0,
        shared: SharedFeatures | None = None,
        spread: SpreadFeatures | None = None,
    ) -> None:
        if shared is not None and spread is not None:
            raise ValueError("features are shared with runs of a grid, or spread over machines, not both")
        self._backbone_of = backbone_of
        self._memory = memory
        self._disk = disk
        self.ahead = ahead
        self.shared, self.spread = shared, spread
        self._tables: dict[Source, FeatureTable] = defaultdict(FeatureTable)
        self._speeds: dict[Source, Speed] = defaultdict(Speed)
        self._kinds: dict[tuple[Source, str], FeatureKind] = {}

    def embed(
        self,
        view: View,
        images: NDArray[np.uint8],
        keys: Sequence[Hashable],
        budget: TimeBudget | None = None,
    ) -> torch.Tensor:
        """Features float32 [n, d] of uint8 images [n, 3, h, w] whose identities are `keys` [n].

        BudgetExhausted where `budget` ends first; what was embedded by then is kept.
        """
        table = self._tables[view.source]
        missing = [i for key, i in {k: i for i, k in enumerate(keys)}.items() if key not in table]
        if missing:
            missing = self._from_disk(view, images, keys, missing)
        if missing:
            missing = self._prepare(view, images, keys, missing, budget)
        if missing:
            self._compute(view, images, keys, missing, budget)
        return self.take(view, keys)

    def _prepare(
        self,
        view: View,
        images: NDArray[np.uint8],
        keys: Sequence[Hashable],
        missing: list[int],
        budget: TimeBudget | None,
    ) -> list[int]:
        """Choose the engine; returns what is missing still. An engine of another precision than was expected finds
        its own features on the disk."""
        (budget or UNLIMITED).check(f"embedding with {view}")
        backbone = self._backbone_of(view.backbone, view.variant)
        expected = backbone.precision(view.px)
        backbone.prepare(
            images,
            view.px,
            n_images=len(missing) + self.ahead,
            budget=budget or UNLIMITED,
            room_bytes=self._memory.left_bytes(),
        )
        if backbone.precision(view.px) == expected:
            return missing
        return self._from_disk(view, images, keys, missing)

    def look(self, view: View, images: NDArray[np.uint8]) -> torch.Tensor:
        """All layers [n, sum of widths] of images that are neither known nor kept, as `pick` takes them: the shortest
        way for a few images."""
        backbone = self._backbone_of(view.backbone, view.variant)
        if backbone.choice(view.px) is None:
            room = self._memory.left_bytes()
            backbone.prepare(images, view.px, n_images=len(images) + self.ahead, room_bytes=room)
        return backbone.embed_layers(images, view.px, flip=view.flip)

    def take(self, view: View, keys: Sequence[Hashable]) -> torch.Tensor:
        """Features float32 [n, d] of images that are embedded. KeyError for one that is not."""
        backbone = self._backbone_of(view.backbone, view.variant)
        if len(keys) == 0:  # and perhaps no table of their width
            return backbone.pick(torch.empty(0, sum(backbone.widths.values())), view.layers)
        return backbone.pick(self._tables[view.source].take(keys), view.layers)

    def take_over(
        self, other: FeatureStore, view: View, keys: Sequence[Hashable], their_keys: Sequence[Hashable]
    ) -> None:
        """Features of images that another store has embedded under `their_keys` [n], under `keys` [n] here. KeyError
        for one that it has not."""
        table = self._tables[view.source]
        new = {key: theirs for key, theirs in zip(keys, their_keys, strict=True) if key not in table}
        if new:
            table.add(list(new), other._tables[view.source].take(list(new.values())))

    def missing(self, view: View, keys: Sequence[Hashable]) -> int:
        """How many distinct images are still to be embedded (or read from the disk)."""
        table = self._tables[view.source]
        return len({key for key in keys if key not in table})

    def embedded(self, view: View) -> int:
        """How many images are embedded."""
        return len(self._tables[view.source])

    def input_px(self, view: View, px: int) -> int:
        """The size nearest to `px` at which the network of a view works."""
        return self._backbone_of(view.backbone, view.variant).input_px(px)

    def speed(self, view: View) -> Speed:
        """What an image costs, as measured in recent chunks."""
        return self._speeds[view.source]

    def measured(self, view: View) -> list[View]:
        """The passes of the network of a view whose speed was measured, as views of its last layer."""
        return [
            View(backbone, px, flip=flip, variant=variant)
            for (backbone, variant, px, flip), speed in self._speeds.items()
            if (backbone, variant) == (view.backbone, view.variant) and len(speed)
        ]

    def seconds_per_image(self, view: View) -> float | None:
        """Measured cost of one image; None before the first measurement."""
        return self.speed(view).mean_s

    def _compute(
        self,
        view: View,
        images: NDArray[np.uint8],
        keys: Sequence[Hashable],
        missing: list[int],
        budget: TimeBudget | None,
    ) -> None:
        backbone = self._backbone_of(view.backbone, view.variant)
        table = self._tables[view.source]
        table.reserve(len(missing), sum(backbone.widths.values()))
        pending = PendingFeatures(images, partial(self._kind, view) if self._disk is not None else None)

        def keep(rows: Sequence[int], features: torch.Tensor, precision: str) -> None:
            table.add([keys[row] for row in rows], features)
            if precision == backbone.precision(view.px):  # else an engine failed, and who knows when
                pending.keep(rows, features, precision)

        def work(start: int, stop: int) -> None:
            (budget or UNLIMITED).check(f"embedding with {view}")
            rows, precision = missing[start:stop], backbone.precision(view.px)
            elapsed = stopwatch()
            features = self._embed_batch(backbone, view, images[rows])
            self.speed(view).add(elapsed(), len(rows))
            keep(rows, features, precision)

        batch = backbone.batch_size(view.px, self._memory.left_bytes())
        try:
            if self.spread is not None:
                if self._image_s(view) is None:  # the first batch tells
                    first = min(batch, len(missing))
                    in_chunks(work, first, batch)
                    missing = missing[first:]
                precision = backbone.precision(view.px)
                for rows, features in self._embed_elsewhere(view, images, missing, batch, budget):
                    keep(rows, features, precision)
                missing = [row for row in missing if keys[row] not in table]
            in_chunks(work, len(missing), batch)
        finally:
            pending.flush()

    def _embed_elsewhere(
        self, view: View, images: NDArray[np.uint8], rows: list[int], batch: int, budget: TimeBudget | None
    ) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """Some of the rows with all their layers [n, d], from others, where that is sooner; the rest is to be
        embedded here."""
        image_s = self._image_s(view)
        if self.spread is None or image_s is None or not rows:
            return
        backbone = self._backbone_of(view.backbone, view.variant)
        own = Pass.of(backbone, view.px, flip=view.flip)
        self.spread.image_s[view.source] = image_s
        if self.spread.pays(own, len(rows), image_s):
            work = Work(own, image_s, batch)
            yield from self.spread.embed(backbone, work, images, rows, budget or UNLIMITED)

    def _image_s(self, view: View) -> float | None:
        """What an image takes here, as measured by this store, or by another one with the same `spread`."""
        known = self.seconds_per_image(view)
        return known if known or self.spread is None else self.spread.image_s.get(view.source)

    def _embed_batch(self, backbone: Backbone, view: View, images: NDArray[np.uint8]) -> torch.Tensor:
        """All layers [n, d] of a batch, computed or shared."""

        def compute(batch: NDArray[np.uint8]) -> torch.Tensor:
            return backbone.embed_layers(batch, view.px, flip=view.flip)

        if self.shared is None:
            return compute(images)
        description = backbone.description(view.px, flip=view.flip)
        return self.shared.embed(description, backbone.engine_name(view.px) or EAGER, images, compute)

    def _from_disk(
        self, view: View, images: NDArray[np.uint8], keys: Sequence[Hashable], missing: list[int]
    ) -> list[int]:
        """Read what the disk has in the precision that is expected now; returns what is missing still."""
        if self._disk is None:
            return missing
        precision = self._backbone_of(view.backbone, view.variant).precision(view.px)
        content = hash_images(images[missing])
        found = self._kind(view, precision).find(content)
        hits = [(row, found[key]) for row, key in zip(missing, content, strict=True) if key in found]
        if hits:
            features = torch.from_numpy(np.stack([row for _, row in hits]))
            self._tables[view.source].add([keys[row] for row, _ in hits], features)
        return [row for row, key in zip(missing, content, strict=True) if key not in found]

    def _kind(self, view: View, precision: str) -> FeatureKind:
        """The part of the disk for a pass by an engine of this precision."""
        assert self._disk is not None
        kind = view.source, precision
        if kind not in self._kinds:
            description = self._backbone_of(view.backbone, view.variant).description(view.px, flip=view.flip)
            self._kinds[kind] = self._disk.kind(description | {"precision": precision})
        return self._kinds[kind]
