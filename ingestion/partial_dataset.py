"""A dataset of which some images are decoded, and the order in which to decode those to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ingestion.datasets import Dataset, dataset_from_names
from ingestion.errors import InputError, NoImageError
from ingestion.image_cache import Pixels
from ingestion.images import DecodedDataset, decode_dataset
from ingestion.preparation import Preparation
from ingestion.splits import Part
from ingestion.tasks import Rows

SHARD = 256
"""Images that are decoded, and cached, together."""
TRIM_EVERY = 64
"""Shards between two looks at all files of the cache, whose number grows with them: 0.8 GB at 128 px."""
FIRST_ROUND = 10
"""Images of each class before any class gets more; each further round has as many as all before."""


class PartialDataset:
    """A dataset whose images are decoded as they are needed, into `file`; the cache keeps them in shards.

    `dataset` loses the images that turn out to be broken, which `broken` names.
    """

    def __init__(self, dataset: Dataset, preparation: Preparation, cache_dir: Path, file: Path) -> None:
        self.dataset = dataset
        self.broken: list[str] = []
        self._preparation, self._cache_dir, self._file = preparation, cache_dir, file
        self._px, self._flat, self._shards = preparation.px, list[Path](), 0
        self._place = np.arange(len(dataset.files))  # in the file, of each row
        self._there = np.zeros(len(dataset.files), dtype=bool)
        self._tried = self._there.copy()
        self._write(file, len(dataset.files), [], [])

    def decode(self, rows: Rows) -> Iterator[int]:
        """Decode those of these rows that were not tried before; after each shard, how many are done."""
        new = rows[~self._tried[rows]]
        done = len(rows) - len(new)
        for start in range(0, len(new), SHARD):
            shard = new[start : start + SHARD]
            self._decode_shard(shard)
            done += len(shard)
            yield done

    def has(self, rows: Rows) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of these rows are decoded, bool [n]."""
        return self._there[rows]

    def remove_broken(self) -> bool:
        """Leave out what turned out to be broken; whether there was any. Rows are then numbered anew. NoImageError if
        nothing is left."""
        bad = np.flatnonzero(self._tried & ~self._there)
        if len(bad) == len(self._tried):
            message = f"{self.dataset.name}: none of its {len(bad)} images can be read ({self.broken[0]})"
            raise NoImageError(message, tuple(self.broken))
        if len(bad):
            self.dataset = self.dataset.without(bad.tolist())
            self._place, self._there, self._tried = (
                np.delete(kept, bad) for kept in (self._place, self._there, self._tried)
            )
        return bool(len(bad))

    def assemble(self) -> DecodedDataset:
        """The images as one array whose row i is row i of `dataset`. Rows that are not decoded are zero, which takes
        no space on disk."""
        file, rows = self._file, len(self._place)
        shape = (rows, 3, self._px, self._px)
        if not np.array_equal(self._place, np.arange(rows)):
            file = self._file.with_name(f"{self._file.name}-dense")
            before = np.memmap(self._file, np.uint8, "r").reshape(-1, *shape[1:])
            there = np.flatnonzero(self._there)
            self._write(file, rows, there, (before[self._place[row]] for row in there))
        images = np.memmap(file, np.uint8, "r", 0, shape)
        return DecodedDataset(self.dataset, images, file, tuple(self.broken), flat=tuple(self._flat))

    def _decode_shard(self, rows: Rows) -> None:
        files = [self.dataset.files[row] for row in rows]
        shard = dataset_from_names(self.dataset.name, files, ["image"] * len(files))
        self._tried[rows] = True
        trim, self._shards = self._shards % TRIM_EVERY == 0, self._shards + 1
        try:
            decoded = decode_dataset(shard, self._preparation, self._cache_dir, trim=trim)
        except NoImageError as error:
            self.broken += error.broken
            return
        self.broken += decoded.broken
        self._flat += decoded.flat
        readable = set(decoded.dataset.files)
        good = rows[[file in readable for file in files]]
        self._there[good] = True
        self._write(self._file, len(self._place), self._place[good], decoded.images)

    def _write(
        self,
        file: Path,
        least: int,
        places: Sequence[int] | Rows,
        images: Iterator[Pixels] | Pixels | list[Pixels],
    ) -> None:
        """Write images to their places in a file that has room for `least` or more."""
        size = 3 * self._px**2
        with file.open("r+b" if file.exists() else "x+b") as stream:
            if stream.seek(0, 2) < least * size:
                stream.truncate(least * size)
            for place, image in zip(places, images, strict=True):
                stream.seek(int(place) * size)
                stream.write(image.tobytes())


def order_to_learn(part: Part) -> Rows:
    """The places of the images of a part in the order in which to decode them.

    `FIRST_ROUND` of each class, class after class, then as many again of each, then twice as many, and so on. So any
    beginning has a fair share of each of its classes.
    """
    rng = np.random.default_rng(0)  # the same in every run, so that the cache is of use
    classes = rng.permutation(len(part.class_names))
    images = [rng.permutation(rows) for rows in part.rows_of_class]
    rounds: list[Rows] = []
    first, last, most = 0, FIRST_ROUND, max(map(len, images))
    while first < most:
        rounds += [images[c][first:last] for c in classes]
        first, last = last, 2 * last
    return np.concatenate(rounds)


def restrict(part: Part, partial: PartialDataset) -> Part:
    """The part with its decoded images, of classes of which most of the first round are there.

    InputError if these are fewer than two classes.
    """
    there = partial.has(part.rows)
    kept = np.zeros_like(there)
    for rows in part.rows_of_class:
        if there[rows].sum() > min(FIRST_ROUND, len(rows)) / 2:
            kept[rows] = there[rows]
    restricted = Part(part.dataset, part.rows[kept])
    if len(restricted.class_names) < 2:
        reasons = "; ".join(partial.broken[:3])
        raise InputError(f"{part.name}: too few of its images can be read to learn from: {reasons}")
    return restricted
