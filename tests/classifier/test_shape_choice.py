"""How images far from square become so: as held-out classes say, where there are enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from colours import pictures, write_folder

from autometa.classifier import FewShotClassifier, shape_choice, training
from autometa.classifier.options import FitOptions
from autometa.classifier.shape_choice import choose_shape, compare, sample_rows
from autometa.classifier.sources import trained_preparation
from autometa.classifier.training import fit_folder
from autometa.core.budget import TimeBudget
from ingestion import Preparation
from ingestion.loose_images import encode_pixels
from ingestion.preparation import SHAPES

PX = 8
CLASSES, EACH = 12, 6


def scene(rng: np.random.Generator, stripes: np.ndarray) -> np.ndarray:
    """uint8 [24, 48, 3]: stripes [8] in the middle, noise at both ends and over everything."""
    pixels = rng.normal(128, 40, (24, 48, 3))
    pixels[:, 12:36] += np.repeat(stripes, 3)[:, None]
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture
def scenes() -> tuple[list[np.ndarray], np.ndarray]:
    """Images whose class only fine stripes in the middle tell, which vanish where two of them become one pixel; and
    their labels."""
    rng = np.random.default_rng(0)
    heights = rng.choice([-40, 0, 40], (CLASSES, 4))
    stripes = np.stack([heights, -heights], axis=-1).reshape(CLASSES, 8)
    labels = np.repeat([f"class {number}" for number in range(CLASSES)], EACH)
    return [scene(rng, stripes[number // EACH]) for number in range(CLASSES * EACH)], labels


def see_pixels(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255)


@pytest.mark.medium
def test_the_shape_that_held_out_classes_prefer_is_chosen(
    scenes: tuple[list[np.ndarray], np.ndarray],
) -> None:
    images, labels = scenes
    chosen, lines = choose_shape(images, labels, Preparation(PX), see_pixels)
    assert chosen == Preparation(PX, shape="crop")
    assert len(lines) == 1 and "most 2.0 to 1" in lines[0] and "crop it is" in lines[0], lines
    again, _ = choose_shape(images, labels, Preparation(PX), see_pixels)
    assert again == chosen, "nothing is random"


def test_images_are_squeezed_where_nothing_speaks_against_it(
    scenes: tuple[list[np.ndarray], np.ndarray],
) -> None:
    images, labels = scenes
    square = [image[:, 12:36] for image in images]
    assert choose_shape(square, labels, Preparation(PX), see_pixels) == (Preparation(PX), [])
    for few, told in ((2 * EACH, "too few"), (0, "no time")):
        budget = TimeBudget.of(1000 if few else -1)
        end = few or None
        chosen, lines = choose_shape(images[:end], labels[:end], Preparation(PX), see_pixels, budget)
        assert chosen == Preparation(PX) and told in lines[0]

    def see_nothing(pixels: np.ndarray) -> torch.Tensor:
        noise = np.random.default_rng(int(pixels.sum()) % 2**32).normal(size=(len(pixels), 20))
        return torch.from_numpy(noise.astype(np.float32))

    chosen, lines = choose_shape(images, labels, Preparation(PX), see_nothing)
    assert chosen == Preparation(PX) and "squeeze it is" in lines[0]


def test_images_that_cannot_be_read_are_left_out(
    scenes: tuple[list[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    images, labels = scenes
    (tmp_path / "bad.png").write_text("no image")
    mixed: list[object] = [tmp_path / "bad.png", *images[1:]]
    assert choose_shape(mixed, labels, Preparation(PX), see_pixels)[0].shape == "crop"


def test_gains_are_those_of_the_same_tasks() -> None:
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(10), 6)
    clear = torch.eye(10)[classes] + torch.from_numpy(rng.normal(0, 0.05, (60, 10)).astype(np.float32))
    blurred = clear + torch.from_numpy(rng.normal(0, 0.6, (60, 10)).astype(np.float32))
    gains = compare({"squeeze": blurred, "pad": clear, "crop": blurred}, classes, rng)
    assert tuple(gains) == SHAPES[1:]
    assert gains["pad"][0] > 2 * gains["pad"][1] > 0 and gains["crop"] == (0.0, 0.0)


def test_classes_with_too_few_images_are_not_sampled() -> None:
    classes = np.array([0] * 40 + [1] * 2 + [c for c in range(2, 11) for _ in range(3)])
    rows = sample_rows(classes, np.random.default_rng(0))
    assert set(classes[rows]) == {0, *range(2, 11)} and len(set(rows.tolist())) == len(rows)
    assert (classes[rows] == 0).sum() == shape_choice.MOST_EACH
    assert not len(sample_rows(classes[:50], np.random.default_rng(0)))


def test_a_shape_that_is_told_is_used_and_kept(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = pictures(2)
    wide = [np.repeat(image, 2, axis=1) for image in images]
    classifier = FewShotClassifier(preset=network, image_shape="pad").fit(wide, labels)
    assert classifier.summary()["image_shape"] == "pad" and classifier.score(wide, labels) == 1
    classifier.save(tmp_path / "saved")
    assert FewShotClassifier.load(tmp_path / "saved").summary()["image_shape"] == "pad"
    assert FewShotClassifier(preset=network).fit(wide, labels).summary()["image_shape"] == "squeeze"
    with pytest.raises(ValueError, match="image_shape = 'round': one of auto, squeeze"):
        FewShotClassifier(preset=network, image_shape="round").fit(wide, labels)  # type: ignore[arg-type]
    monkeypatch.setenv("AUTOMETA_CACHE_DIR", str(tmp_path / "cache"))
    data = write_folder(tmp_path / "data", 1, ("red", "blue"))
    options = FitOptions(output=tmp_path / "model", backbones=network, image_shape="crop")
    assert fit_folder(data, options, lambda line: None).figures["preparation"]["shape"] == "crop"
    assert trained_preparation(tmp_path / "model").shape == "crop"


@pytest.mark.medium
def test_fit_tries_shapes_with_its_first_backbone(
    network: str, scenes: tuple[list[np.ndarray], np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def look(shelf: object, backbone: str, images: np.ndarray) -> torch.Tensor:
        seen.append(backbone)
        return see_pixels(images[:, :, ::8, ::8])

    monkeypatch.setattr(shape_choice, "embed_with", look)
    monkeypatch.setattr(training, "_is_enough", lambda pool: False)
    monkeypatch.setenv("AUTOMETA_CACHE_DIR", str(tmp_path / "cache"))
    for number, (image, label) in enumerate(zip(*scenes, strict=True)):
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / label / f"{number}.png").write_bytes(encode_pixels(image))
    lines: list[str] = []
    fitted = fit_folder(
        tmp_path / "data", FitOptions(output=tmp_path / "model", backbones=network), lines.append
    )
    assert seen == [network] * 3 and any("far from square" in line for line in lines)
    assert fitted.figures["preparation"]["shape"] in SHAPES
