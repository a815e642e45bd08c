"""Images of a dataset, decoded once into a memory-mapped uint8 cache that is keyed by content."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ingestion.cgroups import count_cores
from ingestion.datasets import Dataset
from ingestion.errors import InputError, NoImageError
from ingestion.image_cache import CachedImages, ImageCache, Pixels

FORMAT = "autometa-images-3"
BLOCK_BYTES = 2**20
UNUSABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What `decode_image` raises for a file that is no usable image."""


def read_image_size(file: Path) -> tuple[int, int] | None:
    """Width and height of an image as its header says; None where it cannot be read."""
    try:
        with Image.open(file) as image:
            return image.size
    except UNUSABLE:
        return None


@dataclass(frozen=True)
class DecodedDataset:
    """A dataset and its images, uint8 [n, 3, px, px], RGB; row i is row i of the dataset. `broken` names
    the files that could not be read and were removed from the dataset. `file` holds the same array. `note` says
    what was amiss with the cache, or is empty."""

    dataset: Dataset
    images: Pixels
    file: Path
    broken: tuple[str, ...]
    note: str = ""

    @property
    def offset(self) -> int:
        """Where the array starts in `file`, in bytes."""
        return self.file.stat().st_size - self.images.nbytes


def default_cache_dir() -> Path:
    """`$AUTOMETA_CACHE_DIR`, or else the cache folder of the user."""
    if chosen := os.environ.get("AUTOMETA_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autometa"


def decode_image(data: bytes, px: int) -> Pixels:
    """One encoded image → uint8 [3, px, px], RGB; upright as its EXIF data say, transparency on white, 16 bits a
    channel scaled to 8, the whole image resized to a square with Pillow's bilinear filter (what the original loader
    does). Whoever gives images to a learner decodes them here, so that it sees what it was trained on.

    Raises OSError, ValueError or Image.DecompressionBombError if the data is not a usable image.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (px, px))
        upright = ImageOps.exif_transpose(image)
    rgb = _to_rgb(upright)
    if rgb.size != (px, px):
        rgb = rgb.resize((px, px), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(rgb, dtype=np.uint8).transpose(2, 0, 1))


def encode_thumbnail(image: Pixels, px: int) -> bytes:
    """A decoded image uint8 [3, n, n] as a JPEG file of at most `px` pixels a side."""
    small = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    if small.width > px:
        small = small.resize((px, px), Image.Resampling.BOX, reducing_gap=2.0)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=75)
    return file.getvalue()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of no known range; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow would clip instead of scale
        return Image.fromarray(_scale_grey(image)).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_grey(image: Image.Image) -> NDArray[np.uint8]:
    """Grey pixels of 16 bits → uint8 [h, w]; where one grey means transparent, it becomes white."""
    deep = np.asarray(image).astype(np.int64)
    if deep.min() < 0 or deep.max() >= 2**16:
        raise ValueError(
            f"its pixels lie in {deep.min()} to {deep.max()}, outside the 16 bits of a grey image; "
            "save it with 8 or 16 bits"
        )
    return np.where(deep == image.info.get("transparency", -1), 255, deep >> 8).astype(np.uint8)


def decode_dataset(
    dataset: Dataset, px: int, cache_dir: Path, on_progress: Callable[[int, int], None] | None = None
) -> DecodedDataset:
    """Decode every image of `dataset` at `px` pixels, or map the cache file of an earlier run.

    Raises NoImageError if no image can be read, InputError if the cache folder cannot be written.
    """
    folder, note = cache_dir / "images", ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        cache, key = ImageCache(folder), _content_key(dataset, px)
        was_there, cached = cache.is_there(key), cache.find(key)
        if cached is None:
            if was_there:
                note = (
                    f"{dataset.name}: its decoded images in the cache were changed, so they are decoded again"
                )
            cached = _fill_cache(cache, key, dataset, px, on_progress or (lambda done, total: None))
            cache.trim()
    except OSError as error:
        raise InputError(
            f"image cache {folder}: {error.strerror or error}; free space there or choose another folder "
            "with the environment variable AUTOMETA_CACHE_DIR"
        ) from error
    broken = cached.broken
    lines = tuple(f"{dataset.files[row]}: {reason}" for row, reason in broken.items())
    if len(broken) == len(dataset.files):
        raise NoImageError(
            f"{dataset.name}: none of its {len(broken)} images can be read ({broken[0]})", lines
        )
    return DecodedDataset(
        dataset=dataset.without(broken) if broken else dataset,
        images=cached.images,
        file=cached.file,
        broken=lines,
        note=note,
    )


def is_decoded(dataset: Dataset, px: int, cache_dir: Path) -> bool:
    """Whether the cache has all images of the dataset, so that `decode_dataset` only maps them."""
    folder = cache_dir / "images"
    least_bytes = 3 * px**2 * len(dataset.files) / 2  # half of them may be broken
    if all(file.stat().st_size < least_bytes for file in folder.glob("*.npy")):
        return False  # without reading all images to look them up
    return ImageCache(folder).is_there(_content_key(dataset, px))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""  # a missing or unreadable file is reported when it is decoded


def _content_key(dataset: Dataset, px: int) -> str:
    digest = hashlib.blake2b(f"{FORMAT}:{px}".encode(), digest_size=16)
    with ThreadPoolExecutor(count_cores()) as pool:
        for part in pool.map(lambda f: hashlib.blake2b(_read(f), digest_size=16).digest(), dataset.files):
            digest.update(part)
    return digest.hexdigest()


def _fill_cache(
    cache: ImageCache, key: str, dataset: Dataset, px: int, on_progress: Callable[[int, int], None]
) -> CachedImages:
    total = len(dataset.files)
    broken: dict[int, str] = {}

    def decode(file: Path) -> Pixels | str:
        try:
            return decode_image(_read(file), px)
        except UnidentifiedImageError:
            return "not an image that Pillow knows" if file.exists() else "no such file"
        except UNUSABLE as error:
            return f"{type(error).__name__}: {error}"

    with cache.writing() as scratch:
        writing = scratch / "images.npy"
        images = np.lib.format.open_memmap(writing, "w+", np.uint8, (total, 3, px, px))
        with writing.open("r+b") as file:
            _reserve(file, images.offset, images.nbytes)
        with ThreadPoolExecutor(count_cores()) as pool:
            good = 0
            for row, result in enumerate(pool.map(decode, dataset.files)):
                if isinstance(result, str):
                    broken[row] = result
                else:
                    images[good] = result
                    good += 1
                if row % 64 == 63 or row == total - 1:
                    on_progress(row + 1, total)
        images.flush()
        if broken:
            np.save(scratch / "good.npy", images[:good])
            writing = scratch / "good.npy"
        del images
        return cache.place(key, writing, broken)


def _reserve(file: BinaryIO, start: int, size_bytes: int) -> None:
    """Reserve the space on disk before writing through a memory map: a full disk raises an error here, but would end
    the process by a signal later."""
    if sys.platform == "linux":
        os.posix_fallocate(file.fileno(), start, size_bytes)
    else:
        file.seek(start)
        for done in range(0, size_bytes, BLOCK_BYTES):
            file.write(bytes(min(BLOCK_BYTES, size_bytes - done)))
