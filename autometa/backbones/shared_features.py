"""Features that the runs of a grid of budgets share: each is computed once, and charged for in every run.

Each kind of feature has a folder, named by a digest of everything that determines the features. Every process appends
to files of its own there, so that a kill loses at most a row, and knows what lay there when it first asked. Each
row has a checksum: one that a power cut has left without its content is computed again. Beside
the features stand the seconds that batches took, by engine, device and number of threads: a process that finds its
features there is charged what they take it, by batches of about the same size.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.core import clock, journals
from autometa.core.sharing import SharedWork
from autometa.data.images import hash_images

KEY_BYTES = 8
"""Of the digest of an image, which are enough among the images of a dataset."""
CAP_BYTES = 16 * 2**30
FREE_BYTES = 4 * 2**30
"""Nothing is written to folders that are larger, or to a disk with less space."""
KEY = np.dtype([("image", "<u8"), ("checksum", "<u4")])
"""Of a row, in the file of keys."""
ROWS, KEYS, STEPS = ".rows", ".keys", ".steps.jsonl"

Images = NDArray[np.uint8]
Rows = NDArray[np.float32]
Compute = Callable[[Images], torch.Tensor]


@dataclass
class StepCosts:
    """Seconds per image of recorded batches, by the size of the batch: powers of two. They are charged in the order
    in which they were recorded, again and again."""

    file: Path
    rates: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    _next: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    _writes: bool = True

    def __post_init__(self) -> None:
        journals.cut_damaged_end(self.file)
        for record in journals.read(self.file):
            self.rates[_size_class(record["images"])].append(record["seconds"] / record["images"])

    def charge_s(self, images: int) -> float | None:
        """What a batch takes; None where none was recorded. Sizes that were not recorded cost what the nearest one
        does."""
        if not self.rates:
            return None
        nearest = min(self.rates, key=lambda each: (abs(each - _size_class(images)), -each))
        rates = self.rates[nearest]
        rate = rates[self._next[nearest] % len(rates)]
        self._next[nearest] += 1
        return images * rate

    def add(self, seconds: float, images: int) -> None:
        """A batch was computed here. Where it cannot be written, only this process knows what it took, and what
        follows is not written either: it would stand behind half a line."""
        self.rates[_size_class(images)].append(seconds / images)
        if self._writes:
            try:
                journals.append(self.file, {"images": images, "seconds": seconds})
            except OSError:
                self._writes = False


def _size_class(images: int) -> int:
    return round(math.log2(images))


class SharedKind:
    """Features with one description, float32 [d] by image, and what they cost with one engine here."""

    def __init__(self, folder: Path, costs: StepCosts) -> None:
        self._folder, self._costs = folder, costs
        self._own = folder / uuid.uuid4().hex
        self._known, self._places, self._checksums, self._files = _read_index(folder)
        self._largest = 0
        self._settled = False

    def embed(self, images: Images, compute: Compute) -> torch.Tensor:
        """Features float32 [n, d] of a batch uint8 [n, 3, h, w]: read as far as they are known, at the cost that
        they have here.

        A batch that is larger than any before is computed, as the first one is: then the engine has run and memory
        has been used as in a run alone.
        """
        with clock.taking(0.0):
            keys = _keys_of(images)
            places = self._without_damaged(self._find(keys))
        new = np.flatnonzero(places < 0)
        is_larger, self._largest = len(images) > self._largest, max(len(images), self._largest)
        cost_s = None if is_larger or len(new) == len(images) else self._costs.charge_s(len(images))
        if cost_s is None:
            return self._compute_all(images, keys, new, compute)
        with clock.taking(cost_s):
            features = self._read(places)
            if len(new):
                computed = compute(images[new])
                features[torch.from_numpy(new)] = computed
        if len(new):
            self._keep(keys[new], computed)
        return features

    def _compute_all(
        self, images: Images, keys: NDArray[np.uint64], new: NDArray[np.int64], compute: Compute
    ) -> torch.Tensor:
        """All features, computed; the new ones are kept, and what they took, once the engine is warm."""
        began = clock.perf_counter()
        features = compute(images)
        seconds = clock.perf_counter() - began
        with clock.taking(0.0):
            is_measure = len(new) == len(images) or not self._costs.rates
            if is_measure and self._settled:
                self._costs.add(seconds, len(images))
            self._settled = True
        self._keep(keys[new], features[torch.from_numpy(new)])
        return features

    def _find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The place of each key, -1 where it has none."""
        if not len(self._known):
            return np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(self._known, keys), len(self._known) - 1)
        return np.where(self._known[at] == keys, self._places[at], -1)

    def _without_damaged(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places, -1 for rows that are not what was written."""
        there = np.flatnonzero(places >= 0)
        if len(there):
            rows = self._read(places[there]).numpy()
            whole = [zlib.crc32(row.data) for row in rows] == self._checksums[places[there]]
            places[there[~whole]] = -1
        return places

    def _read(self, places: NDArray[np.int64]) -> torch.Tensor:
        """Rows [n, d] at these places; what stands in those without a place has no meaning."""
        features = np.empty((len(places), self._files[0][1].shape[1]), np.float32)
        for first, rows in self._files:
            inside = (places >= first) & (places < first + len(rows))
            features[inside] = rows[places[inside] - first]
        return torch.from_numpy(features)

    def _keep(self, keys: NDArray[np.uint64], features: torch.Tensor) -> None:
        """Append rows. A disk that is full or read-only is no failure: later runs compute them again. What comes
        after it goes to other files, as rows and keys of these no longer stand in the same places."""
        if not len(keys):
            return
        with clock.taking(0.0):
            written = np.ascontiguousarray(features.numpy(), dtype="<f4")
            records = np.empty(len(keys), KEY)
            records["image"], records["checksum"] = keys, [zlib.crc32(row.data) for row in written]
            rows = self._own.with_name(f"{self._own.name}-{features.shape[1]}{ROWS}")
            try:
                with rows.open("ab") as stream:
                    stream.write(written.tobytes())
                with self._own.with_suffix(KEYS).open("ab") as stream:
                    stream.write(records.tobytes())
            except OSError:
                self._own = self._folder / uuid.uuid4().hex


class SharedFeatures:
    """The kinds of features in the folder of shared work."""

    def __init__(self, shared: SharedWork) -> None:
        self._root, self._label = shared.folder / "features", shared.speed_label
        self._kinds: dict[tuple[str, str], SharedKind] = {}

    @classmethod
    def of(cls, shared: SharedWork | None) -> SharedFeatures | None:
        """None where nothing is shared."""
        return None if shared is None else cls(shared)

    def embed(
        self, description: Mapping[str, Any], engine: str, images: Images, compute: Compute
    ) -> torch.Tensor:
        """Features float32 [n, d] of a batch uint8 [n, 3, h, w], of the kind that is described (values are JSON
        values), which `compute` makes with an engine."""
        with clock.taking(0.0):
            kind = self._kind(description, engine)
        return compute(images) if kind is None else kind.embed(images, compute)

    def _kind(self, description: Mapping[str, Any], engine: str) -> SharedKind | None:
        """None where there is no room for it, or its folder cannot be used."""
        text = json.dumps(description, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        if (digest, engine) not in self._kinds:
            folder = self._root / digest
            try:
                if not _has_room(self._root):
                    return None
                folder.mkdir(parents=True, exist_ok=True)
                costs = StepCosts(folder / f"{engine}-{self._label}{STEPS}")
                self._kinds[digest, engine] = SharedKind(folder, costs)
            except OSError:
                return None
        return self._kinds[digest, engine]


def _has_room(root: Path) -> bool:
    root.mkdir(parents=True, exist_ok=True)
    used = sum(file.stat().st_size for file in root.glob("*/*"))
    status = os.statvfs(root)
    return used < CAP_BYTES and status.f_bavail * status.f_frsize > FREE_BYTES


def _keys_of(images: Images) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(key[:KEY_BYTES] for key in hash_images(images)), "<u8")


def _read_index(
    folder: Path,
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint32], list[tuple[int, Rows]]]:
    """All keys in a folder, ascending, with the place of each; checksums by place; and the mapped rows of each file
    with the place of the first one. A half row that a kill left is not read."""
    keys, files, first = [np.empty(0, KEY)], list[tuple[int, Rows]](), 0
    for file in sorted(folder.glob(f"*{ROWS}")):
        name, width = file.name.removesuffix(ROWS).rsplit("-", 1)
        own = folder / f"{name}{KEYS}"
        if not own.exists():
            continue
        count = min(file.stat().st_size // (4 * int(width)), own.stat().st_size // KEY.itemsize)
        if count:
            keys.append(np.fromfile(own, KEY, count))
            files.append((first, np.memmap(file, "<f4", "r", shape=(count, int(width)))))
            first += count
    joined = np.concatenate(keys)
    order = np.argsort(joined["image"], kind="stable").astype(np.int64)
    return joined["image"][order], order, joined["checksum"], files
