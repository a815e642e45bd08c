"""The example that classifies one's own images sees the pixels that training saw."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from synthetic import example_module

from autometa.classifier.sources import trained_preparation
from ingestion import Preparation
from ingestion.datasets import read_class_folders
from ingestion.images import decode_dataset
from ingestion.pixels import decode_image

PX = 16


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return example_module("classify")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def half_white(width: int, height: int) -> Image.Image:
    """White on its left half, black on its right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = 255
    return Image.fromarray(pixels)


def rotated_jpeg() -> bytes:
    """Shown turned by a quarter, as phones store photos: the white half is on top."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(half_white(64, 32), "JPEG", exif=exif.tobytes(), quality=95)


def palette_png() -> bytes:
    """Black where it is seen, on a transparent ground that the palette calls red."""
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(0, (0, 0, 32, 16))
    return encoded(image, "PNG", transparency=1)


def deep_png() -> bytes:
    return encoded(Image.fromarray(np.full((24, 32), 40_000, np.uint16)), "PNG")


def cmyk_jpeg() -> bytes:
    return encoded(Image.new("CMYK", (32, 24), (0, 255, 255, 0)), "JPEG", quality=95)


FILES = {"a.jpg": rotated_jpeg, "b.png": palette_png, "c.png": deep_png, "d.jpg": cmyk_jpeg}


class FakeLearner:
    """Remembers the images that it is given and answers the first class."""

    seen: list[np.ndarray]

    def fit(self, images: np.ndarray, labels: np.ndarray, ways: int) -> FakeLearner:
        self.seen, self.ways = [images], ways
        return self

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(images)
        return np.eye(self.ways)[np.zeros(len(images), int)]


def test_the_example_sees_the_pixels_of_ingestion(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("first", "second"):
        (tmp_path / "labelled" / name).mkdir(parents=True)
        (tmp_path / "labelled" / name / ".hidden").write_text("no image")
        for file, content in FILES.items():
            (tmp_path / "labelled" / name / file).write_bytes(content())
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "ingestion.json").write_text(json.dumps({"image_size": PX}))
    learner = FakeLearner()
    monkeypatch.setattr(example, "load_learner", lambda folder: learner)
    labelled = tmp_path / "labelled"
    example.main(
        str(tmp_path / "run" / "model"), str(labelled), *(str(labelled / "first" / f) for f in FILES)
    )
    decoded = decode_dataset(read_class_folders(labelled), PX, tmp_path / "cache")
    support, query = learner.seen
    np.testing.assert_array_equal(support, decoded.images)
    np.testing.assert_array_equal(query, decoded.images[: len(FILES)])
    assert capsys.readouterr().out.count(": first (100%)") == len(FILES)


def test_a_photo_is_upright() -> None:
    image = decode_image(rotated_jpeg(), PX)
    assert (image[:, : PX // 2 - 1] > 240).all() and (image[:, PX // 2 + 1 :] < 15).all()


def test_what_is_transparent_becomes_white() -> None:
    image = decode_image(palette_png(), PX)
    assert (image[:, : PX // 2 - 1] == 0).all() and (image[:, PX // 2 + 1 :] == 255).all()
    key = encoded(Image.new("RGB", (8, 8), (5, 6, 7)), "PNG", transparency=(5, 6, 7))
    assert (decode_image(key, PX) == 255).all()
    chunk = b"tRNS" + (40_000).to_bytes(2, "big")
    header, rest = deep_png()[:33], deep_png()[33:]
    deep_key = header + (2).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + rest
    assert (decode_image(deep_key, PX) == 255).all()


def test_sixteen_bits_are_scaled_whatever_the_file() -> None:
    pgm = b"P5\n8 8\n65535\n" + np.full((8, 8), 40_000, ">u2").tobytes()
    tiff = encoded(Image.fromarray(np.full((8, 8), 40_000, np.int32)), "TIFF")
    for data in (deep_png(), pgm, tiff):
        assert (decode_image(data, PX) == 40_000 >> 8).all()


def test_pixels_of_no_known_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"floating-point .* save it with 8 or 16 bits"):
        decode_image(encoded(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF"), PX)
    with pytest.raises(ValueError, match="lie in 70000 to 70000, outside the 16 bits"):
        decode_image(encoded(Image.fromarray(np.full((8, 8), 70_000, np.int32)), "TIFF"), PX)


def test_inks_become_colours() -> None:
    image = decode_image(cmyk_jpeg(), PX).astype(int)
    assert (image[0] > 240).all() and (image[1:] < 15).all()


def test_without_the_record_of_a_run_images_have_the_usual_size(tmp_path: Path) -> None:
    assert trained_preparation(tmp_path / "model") == Preparation(128)


def test_images_are_prepared_as_those_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    prepared = Preparation(160, 0.0, 4095.0, 0)
    record = {"image_size": 160, "preparation": prepared.to_json()}
    (tmp_path / "ingestion.json").write_text(json.dumps(record))
    assert trained_preparation(tmp_path / "model") == prepared
