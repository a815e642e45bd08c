"""What people hand over as images, prepared for a learner: paths, Pillow images, arrays, tensors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ingestion import Preparation, decode_image, survey
from ingestion.datasets import dataset_from_names
from ingestion.formats import UNUSABLE, reason_of
from ingestion.image_size import SAMPLE, sample_sizes, suit_sides
from ingestion.loose_images import encode_image, encode_pixels, is_image

Images = NDArray[np.uint8]
CHANNELS = (1, 3, 4)
KINDS = "paths, Pillow images, uint8 arrays [n, h, w, 3] or [n, 3, h, w], or tensors"


def as_sequence(images: Any) -> Sequence[Any]:
    """Images one by one, each a path, an image of Pillow, or pixels uint8 [h, w], [h, w, 3] or [h, w, 4].

    `images`: a list, an object array or a series of paths or Pillow images; an array or tensor with a batch of
    images, uint8, or floats in 0 … 1. ValueError says what was given instead.
    """
    if isinstance(images, (str, Path)) or is_image(images):
        raise ValueError("one image was given where several are expected: write [image]")
    if isinstance(images, torch.Tensor):
        images = images.detach().cpu().numpy()
    if hasattr(images, "to_numpy"):
        images = images.to_numpy()
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OUS":
        return _pixels(images)
    rows = [_one(image, number) for number, image in enumerate(images)]
    if not rows:
        raise ValueError(f"Found array with 0 sample(s): give one image or more ({KINDS})")
    return rows


def _pixels(batch: NDArray[Any]) -> Sequence[Any]:
    """The images of a batch, the channels last."""
    if batch.ndim not in (3, 4) or 0 in batch.shape:
        raise ValueError(
            f"images have the shape {list(batch.shape)}; expected [n, h, w, 3], [n, 3, h, w] or [n, h, w]. One "
            "image: write image[None]"
        )
    if batch.ndim == 3 and batch.shape[-1] in CHANNELS:
        raise ValueError(
            f"images have the shape {list(batch.shape)}, which looks like one image; write image[None]"
        )
    if batch.dtype.kind == "f":
        if not np.isfinite(batch).all() or batch.min() < 0 or batch.max() > 1:
            raise ValueError("images are floating-point numbers outside 0 … 1; scale them, or give uint8")
        batch = np.round(batch * 255).astype(np.uint8)
    if batch.dtype != np.uint8:
        raise ValueError(f"images have the type {batch.dtype}; give uint8, or floats in 0 … 1")
    if batch.ndim == 4 and batch.shape[-1] not in CHANNELS:
        if batch.shape[1] not in CHANNELS:
            raise ValueError(f"images have the shape {list(batch.shape)}; 1, 3 or 4 channels are expected")
        batch = np.moveaxis(batch, 1, -1)
    return list(batch[..., 0] if batch.ndim == 4 and batch.shape[-1] == 1 else batch)


def _one(image: Any, number: int) -> Any:
    if isinstance(image, (str, os.PathLike)) or is_image(image):
        return image
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    if isinstance(image, np.ndarray) and image.ndim in (2, 3):
        return _pixels(image[None])[0]
    raise ValueError(f"image {number} is a {type(image).__name__}; give {KINDS}")


def choose_preparation(images: Sequence[Any]) -> Preparation:
    """How these images are prepared: at the shorter side of most, within the bounds of `--image-size auto`; deep
    greys and transparent parts as the files among them need it."""
    files = [Path(image) for image in images if isinstance(image, (str, os.PathLike))]
    loose = [image for image in images if not isinstance(image, (str, os.PathLike))]
    with tempfile.TemporaryDirectory(prefix="autometa-") as scratch:
        for number, image in enumerate(loose[:: len(loose) // SAMPLE + 1]):
            files.append(Path(scratch) / f"{number}.png")
            files[-1].write_bytes(_encode(image))
        dataset = dataset_from_names("examples", files, [""] * len(files))
        return survey.choose_preparation([dataset], _choose_px(images))[0]


def _encode(image: Any) -> bytes:
    """An image that is no file, as one."""
    return encode_pixels(image) if isinstance(image, np.ndarray) else encode_image(image)


def _choose_px(images: Sequence[Any]) -> int:
    return suit_sides([min(size) for size in look_up_sizes(images)])


def look_up_sizes(images: Sequence[Any]) -> list[tuple[int, int]]:
    """The two sides of a few images, evenly spread over all; those that cannot be read are left out."""
    places = np.unique(np.linspace(0, len(images) - 1, SAMPLE).astype(int))
    return [size for place in places for size in _sides(images[place])]


def _sides(image: Any) -> list[tuple[int, int]]:
    if isinstance(image, np.ndarray):
        return [(image.shape[1], image.shape[0])]
    return [image.size] if is_image(image) else sample_sizes([Path(image)])


def read_image(image: Any, preparation: Preparation) -> Images:
    """One of `as_sequence` → uint8 [3, px, px]. ValueError names the file and what is wrong with it."""
    if isinstance(image, np.ndarray) and image.shape == (preparation.px, preparation.px, 3):
        return np.ascontiguousarray(np.moveaxis(image, -1, 0))  # nothing is left to prepare
    is_file = isinstance(image, (str, os.PathLike))
    name = str(image) if is_file else "an image"
    try:
        return decode_image(Path(image).read_bytes() if is_file else _encode(image), preparation)
    except FileNotFoundError as error:
        raise ValueError(f"{name}: no such file") from error
    except UNUSABLE as error:
        reason = reason_of(error, Path(image)) if is_file else str(error)
        raise ValueError(f"{name}: not a usable image ({reason})") from error


def read_in_chunks(images: Sequence[Any], preparation: Preparation, chunk: int) -> Iterator[Images]:
    """Images uint8 [m, 3, px, px], at most `chunk` at a time."""
    for start in range(0, len(images), chunk):
        yield np.stack([read_image(image, preparation) for image in images[start : start + chunk]])
