"""Images that are not square: squeezed, padded or cropped, as the preparation says."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingestion.image_size import elongation, sample_sizes
from ingestion.pixels import decode_image
from ingestion.preparation import SHAPES, Preparation, Shape, common_preparation
from ingestion.sources import read_source
from ingestion.survey import choose_preparation, choose_preparations, measure_elongation

PX = 16
GREY, RED, BLUE = (90, 90, 90), (220, 10, 10), (10, 10, 220)


def striped(width: int, height: int) -> Image.Image:
    """Red at one end of the longer side, blue at the other, grey in the middle and at its edges."""
    image = Image.new("RGB", (width, height), GREY)
    long, short = max(width, height), min(width, height)
    for start, colour in ((0, RED), (long - short // 2, BLUE)):
        ends = (start, short // 4, start + short // 2, short - short // 4)
        image.paste(colour, ends if width > height else (ends[1], ends[0], ends[3], ends[2]))
    return image


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def decode(image: Image.Image, shape: Shape) -> np.ndarray:
    return np.moveaxis(decode_image(encode(image), Preparation(PX, shape=shape)), 0, -1)


def is_colour(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixels.astype(int) - colour).max(-1) < 40).any())


def folder_of(root: Path, width: int, height: int) -> Path:
    for name in ("one", "two"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            striped(width, height).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize("size", [(64, 32), (32, 64)])
def test_ends_are_seen_unless_they_are_cut(size: tuple[int, int]) -> None:
    seen = {shape: decode(striped(*size), shape) for shape in SHAPES}
    for shape, pixels in seen.items():
        assert pixels.shape == (PX, PX, 3)
        assert is_colour(pixels, RED) == is_colour(pixels, BLUE) == (shape != "crop")
    bars = seen["pad"] if size[0] > size[1] else seen["pad"].swapaxes(0, 1)
    assert (bars[: PX // 4] == GREY).all() and (bars[-PX // 4 :] == GREY).all(), (
        "bars have the colour of the edges"
    )
    whole = np.asarray(striped(*size).resize((PX, PX), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(seen["squeeze"], whole)


def test_a_square_image_is_the_same_in_every_shape() -> None:
    image = striped(40, 40)
    first, *others = (decode(image, shape) for shape in SHAPES)
    for other in others:
        np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("shape", SHAPES)
def test_extreme_shapes_and_large_photos_are_decoded(shape: Shape) -> None:
    assert decode(Image.new("RGB", (900, 1), RED), shape).shape == (PX, PX, 3)
    photo = encode(striped(800, 500), "JPEG")
    assert decode_image(photo, Preparation(PX, shape=shape)).shape == (3, PX, PX)


def test_the_shape_is_kept_and_distinguishes_images_in_the_cache() -> None:
    padded = Preparation(PX, shape="pad")
    assert Preparation.from_json(json.loads(json.dumps(padded.to_json()))) == padded
    keys = {Preparation(PX, ground=ground, shape=shape).key for shape in SHAPES for ground in (0, 255)}
    assert len(keys) == 6 and str(PX) in keys
    assert Preparation(PX, 0.0, 1.0).key == f"{PX}:0.0:1.0:255", (
        "the key of caches from before there were shapes"
    )
    assert common_preparation(PX, [padded, padded]) == padded
    assert common_preparation(PX, [padded, Preparation(PX)]) == Preparation(PX)
    assert (
        Preparation.from_json({"px": PX, "grey_low": None, "grey_high": None, "ground": 255}).shape
        == "squeeze"
    )


def test_images_far_from_square_are_told_of(tmp_path: Path) -> None:
    wide, nearly = folder_of(tmp_path / "wide", 60, 30), folder_of(tmp_path / "nearly", 44, 40)
    assert measure_elongation(list(read_source(wide).datasets.values())) == 2.0
    for folder, told in ((wide, True), (nearly, False)):
        source = choose_preparations(read_source(folder), PX, "auto")
        assert any("far from square (most 2.0 to 1)" in note for note in source.notes) == told
        assert source.preparation(folder.name, PX).shape == "squeeze"
    padded = choose_preparations(read_source(wide), PX, "pad")
    assert padded.preparation("wide", PX).shape == "pad" and not padded.notes
    assert choose_preparation(list(padded.datasets.values()), PX, "crop")[0].shape == "crop"
    assert elongation(sample_sizes([])) == 1.0
