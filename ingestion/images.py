"""Images of a dataset, decoded once into a memory-mapped uint8 cache that is keyed by content.

A cache file is written under another name and renamed when it is complete, so that a kill leaves no half file. Two
runs at once both do the work, but do not disturb each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ingestion.datasets import Dataset
from ingestion.errors import InputError, NoImageError

FORMAT = "autometa-images-2"
BLOCK_BYTES = 2**20
CACHE_CAP_BYTES = 20 * 2**30
"""Above this size, the least recently used cache files are deleted."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class DecodedDataset:
    """A dataset and its images, uint8 [n, 3, px, px], RGB; row i is row i of the dataset. `broken` names
    the files that could not be read and were removed from the dataset. `file` holds the same array."""

    dataset: Dataset
    images: Pixels
    file: Path
    broken: tuple[str, ...]


def default_cache_dir() -> Path:
    """`$AUTOMETA_CACHE_DIR`, or else the cache folder of the user."""
    if chosen := os.environ.get("AUTOMETA_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autometa"


def decode_image(data: bytes, px: int) -> Pixels:
    """One encoded image → uint8 [3, px, px], RGB; transparency on white, the whole image resized to a
    square with Pillow's bilinear filter (what the original loader does).

    Raises OSError, ValueError or Image.DecompressionBombError if the data is not a usable image.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (px, px))
        upright = ImageOps.exif_transpose(image)
    rgb = _to_rgb(upright)
    if rgb.size != (px, px):
        rgb = rgb.resize((px, px), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(rgb, dtype=np.uint8).transpose(2, 0, 1))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):  # 16-bit grey: Pillow would clip instead of scale
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "A" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


def decode_dataset(
    dataset: Dataset, px: int, cache_dir: Path, on_progress: Callable[[int, int], None] | None = None
) -> DecodedDataset:
    """Decode every image of `dataset` at `px` pixels, or map the cache file of an earlier run.

    Raises NoImageError if no image can be read, InputError if the cache folder cannot be written.
    """
    folder = cache_dir / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = _content_key(dataset, px)
        array_file, notes_file = folder / f"{key}.npy", folder / f"{key}.json"
        if not (array_file.exists() and notes_file.exists()):
            _fill_cache(dataset, px, array_file, notes_file, on_progress or (lambda done, total: None))
            _trim(folder, keep=array_file)
        with contextlib.suppress(PermissionError):
            os.utime(array_file)
        broken = {int(row): reason for row, reason in json.loads(notes_file.read_text()).items()}
        images = np.load(array_file, mmap_mode="r")
    except OSError as error:
        raise InputError(
            f"image cache {folder}: {error.strerror or error}; free space there or choose another folder "
            "with the environment variable AUTOMETA_CACHE_DIR"
        ) from error
    lines = tuple(f"{dataset.files[row]}: {reason}" for row, reason in broken.items())
    if len(broken) == len(dataset.files):
        raise NoImageError(
            f"{dataset.name}: none of its {len(broken)} images can be read ({broken[0]})", lines
        )
    return DecodedDataset(
        dataset=dataset.without(broken) if broken else dataset,
        images=images,
        file=array_file,
        broken=lines,
    )


def is_decoded(dataset: Dataset, px: int, cache_dir: Path) -> bool:
    """Whether the cache has all images of the dataset, so that `decode_dataset` only maps them."""
    folder = cache_dir / "images"
    least_bytes = 3 * px**2 * len(dataset.files) / 2  # half of them may be broken
    if all(file.stat().st_size < least_bytes for file in folder.glob("*.npy")):
        return False  # without reading all images to look them up
    array_file = folder / f"{_content_key(dataset, px)}.npy"
    return array_file.exists() and array_file.with_suffix(".json").exists()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""  # a missing or unreadable file is reported when it is decoded


def _content_key(dataset: Dataset, px: int) -> str:
    digest = hashlib.blake2b(f"{FORMAT}:{px}".encode(), digest_size=16)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in pool.map(lambda f: hashlib.blake2b(_read(f), digest_size=16).digest(), dataset.files):
            digest.update(part)
    return digest.hexdigest()


def _fill_cache(
    dataset: Dataset, px: int, array_file: Path, notes_file: Path, on_progress: Callable[[int, int], None]
) -> None:
    total = len(dataset.files)
    broken: dict[int, str] = {}

    def decode(file: Path) -> Pixels | str:
        try:
            return decode_image(_read(file), px)
        except UnidentifiedImageError:
            return "not an image that Pillow knows" if file.exists() else "no such file"
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return f"{type(error).__name__}: {error}"

    with tempfile.TemporaryDirectory(dir=array_file.parent, prefix="writing-") as scratch:
        writing = Path(scratch) / "images.npy"
        images = np.lib.format.open_memmap(writing, "w+", np.uint8, (total, 3, px, px))
        with writing.open("r+b") as file:
            _reserve(file, images.offset, images.nbytes)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
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
            np.save(Path(scratch) / "good.npy", images[:good])
            writing = Path(scratch) / "good.npy"
        del images
        notes = Path(scratch) / "notes.json"
        notes.write_text(json.dumps(broken))
        notes.replace(notes_file)
        writing.replace(array_file)


def _trim(folder: Path, keep: Path) -> None:
    """Remove least recently used arrays above the cap; a run that maps one keeps it until it ends."""
    files = sorted((f for f in folder.glob("*.npy") if f != keep), key=lambda f: f.stat().st_mtime)
    excess = sum(f.stat().st_size for f in [*files, keep]) - CACHE_CAP_BYTES
    for file in files:
        if excess <= 0:
            return
        excess -= file.stat().st_size
        file.unlink(missing_ok=True)
        file.with_suffix(".json").unlink(missing_ok=True)


def _reserve(file: BinaryIO, start: int, size_bytes: int) -> None:
    """Reserve the space on disk before writing through a memory map: a full disk raises an error here, but would end
    the process by a signal later."""
    if sys.platform == "linux":
        os.posix_fallocate(file.fileno(), start, size_bytes)
    else:
        file.seek(start)
        for done in range(0, size_bytes, BLOCK_BYTES):
            file.write(bytes(min(BLOCK_BYTES, size_bytes - done)))
