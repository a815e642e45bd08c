"""Images of a dataset, decoded once into a memory-mapped uint8 cache that is keyed by content."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ingestion.cgroups import count_cores
from ingestion.datasets import Dataset
from ingestion.errors import InputError, NoImageError
from ingestion.formats import UNUSABLE, quiet_decoders, reason_of
from ingestion.image_cache import CachedImages, ImageCache, Pixels
from ingestion.pixels import decode_image, is_flat
from ingestion.preparation import Preparation

FORMAT = "autometa-images-5"
BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class DecodedDataset:
    """A dataset and its images, uint8 [n, 3, px, px], RGB; row i is row i of the dataset. `broken` names
    the files that could not be read and were removed from the dataset, `flat` those that are one colour. `file` holds
    the same array. `note` says what was amiss with the cache, or is empty."""

    dataset: Dataset
    images: Pixels
    file: Path
    broken: tuple[str, ...]
    note: str = ""
    flat: tuple[Path, ...] = ()

    @property
    def offset(self) -> int:
        """Where the array starts in `file`, in bytes."""
        return self.file.stat().st_size - self.images.nbytes


def default_cache_dir() -> Path:
    """`$AUTOMETA_CACHE_DIR`, or else the cache folder of the user. InputError where there is none."""
    if chosen := os.environ.get("AUTOMETA_CACHE_DIR"):
        return Path(chosen)
    return user_cache_dir() / "autometa"


def user_cache_dir() -> Path:
    """Where the user's programs keep what they can make again. InputError where the user has no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise InputError(
            "HOME is not set, and the system knows no home folder of this user: set HOME to a folder that can be "
            "written"
        ) from error


def decode_dataset(
    dataset: Dataset,
    px: int | Preparation,
    cache_dir: Path,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    trim: bool = True,
) -> DecodedDataset:
    """Decode every image of `dataset` at `px` pixels or as a preparation says, or map the cache file of an earlier
    run. `trim`: keep the cache below its cap, which looks at all its files.

    Raises NoImageError if no image can be read, InputError if the cache folder cannot be written.
    """
    preparation, note = Preparation.of(px), ""
    folder = cache_dir / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        cache, key = ImageCache(folder), _content_key(dataset, preparation)
        was_there, cached = cache.is_there(key), cache.find(key)
        if cached is None:
            if was_there:
                note = (
                    f"{dataset.name}: its decoded images in the cache were changed, so they are decoded again"
                )
            cached = _fill_cache(cache, key, dataset, preparation, on_progress or (lambda done, total: None))
            if trim:
                cache.trim()
    except OSError as error:
        free = "free space there or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise InputError(
            f"image cache {folder}: {error.strerror or error}; {free}choose another folder with the environment "
            "variable AUTOMETA_CACHE_DIR"
        ) from error
    return _decoded(dataset, cached, note)


def _decoded(dataset: Dataset, cached: CachedImages, note: str) -> DecodedDataset:
    """The dataset with what the cache has of it. NoImageError if that is nothing."""
    broken = cached.broken
    lines = tuple(f"{dataset.files[row]}: {reason}" for row, reason in broken.items())
    if len(broken) == len(dataset.files):
        raise NoImageError(
            f"{dataset.name}: none of its {len(broken)} images can be read ({broken[0]})", lines
        )
    left = dataset.without(broken) if broken else dataset
    return DecodedDataset(
        dataset=left,
        images=cached.images,
        file=cached.file,
        broken=lines,
        note=note,
        flat=tuple(left.files[row] for row in cached.flat),
    )


def is_decoded(dataset: Dataset, px: int | Preparation, cache_dir: Path) -> bool:
    """Whether the cache has all images of the dataset, so that `decode_dataset` only maps them."""
    folder, preparation = cache_dir / "images", Preparation.of(px)
    least_bytes = 3 * preparation.px**2 * len(dataset.files) / 2  # half of them may be broken
    if all(file.stat().st_size < least_bytes for file in folder.glob("*.npy")):
        return False  # without reading all images to look them up
    return ImageCache(folder).is_there(_content_key(dataset, preparation))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""  # a missing or unreadable file is reported when it is decoded


def _content_key(dataset: Dataset, preparation: Preparation) -> str:
    digest = hashlib.blake2b(f"{FORMAT}:{preparation.key}".encode(), digest_size=16)
    with ThreadPoolExecutor(count_cores()) as pool:
        for part in pool.map(lambda f: hashlib.blake2b(_read(f), digest_size=16).digest(), dataset.files):
            digest.update(part)
    return digest.hexdigest()


def _fill_cache(
    cache: ImageCache,
    key: str,
    dataset: Dataset,
    preparation: Preparation,
    on_progress: Callable[[int, int], None],
) -> CachedImages:
    total, px = len(dataset.files), preparation.px
    broken: dict[int, str] = {}
    flat: list[int] = []

    def decode(file: Path) -> Pixels | str:
        try:
            return decode_image(_read(file), preparation)
        except UNUSABLE as error:
            return reason_of(error, file)

    with cache.writing() as scratch:
        writing = scratch / "images.npy"
        images = np.lib.format.open_memmap(writing, "w+", np.uint8, (total, 3, px, px))
        with writing.open("r+b") as file:
            _reserve(file, images.offset, images.nbytes)
        with quiet_decoders(), ThreadPoolExecutor(count_cores()) as pool:
            good = 0
            for row, result in enumerate(pool.map(decode, dataset.files)):
                if isinstance(result, str):
                    broken[row] = result
                else:
                    if is_flat(result):
                        flat.append(good)
                    images[good] = result
                    good += 1
                if row % 64 == 63 or row == total - 1:
                    on_progress(row + 1, total)
        images.flush()
        if broken:
            np.save(scratch / "good.npy", images[:good])
            writing = scratch / "good.npy"
        del images
        return cache.place(key, writing, broken, flat)


def _reserve(file: BinaryIO, start: int, size_bytes: int) -> None:
    """Reserve the space on disk before writing through a memory map: a full disk raises an error here, but would end
    the process by a signal later."""
    if sys.platform == "linux":
        os.posix_fallocate(file.fileno(), start, size_bytes)
    else:
        file.seek(start)
        for done in range(0, size_bytes, BLOCK_BYTES):
            file.write(bytes(min(BLOCK_BYTES, size_bytes - done)))
