"""How many images go at a time, by the memory that they take, and how they travel."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from engine_cases import IMAGES, PX, tiny

from autometa.backbones import CATALOGUE, batches
from autometa.backbones.batches import (
    BYTES_PER_PIXEL,
    LARGEST_GPU_BATCH,
    MIB,
    MOST_RATIO,
    PassMemory,
    batch_size,
    to_device,
    to_host,
)
from autometa.backbones.costs import peak_bytes
from autometa.backbones.engines.half import pad_images
from autometa.core.tensor_memory import TensorCounter, measure_peak

LITE0 = CATALOGUE["tf_efficientnet_lite0"]


@pytest.mark.parametrize(
    ("free", "image_bytes", "expected"),
    [
        (300 * 2**30, MIB, 256),
        (300 * MIB, MIB, 64),
        (765 * MIB, MIB, 64),
        (768 * MIB, MIB, 256),
        (MIB, MIB, 1),
    ],
)
def test_a_gpu_takes_what_its_memory_holds_in_sizes_that_need_no_padding(
    free: int, image_bytes: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "free_bytes", lambda _: free)
    assert batch_size("cuda", 128, 1, image_bytes) == expected, "memory of the host does not count"


def test_the_host_goes_by_a_generous_figure() -> None:
    image = BYTES_PER_PIXEL * 128**2
    assert batch_size("cpu", 128, 30 * image, 1.0) == 10
    assert batch_size("cpu", 128, 10**6 * image, 1.0) == 64 and batch_size("cpu", 128, 0, 1.0) == 1
    assert batch_size("mps", 128, 10**6 * image, 1.0) == LARGEST_GPU_BATCH


def test_a_real_pass_corrects_the_prediction_of_others() -> None:
    passes, image = PassMemory(LITE0), peak_bytes(LITE0, 128)
    assert passes.image_bytes(128, "float32") == image == 2 * passes.image_bytes(128, "half")
    line = passes.correct(64, 128, "half", int(64 * image * 0.6))
    assert line == (
        f"memory of 64 images of 128 px: {64 * image / 2 / MIB:.1f} MiB predicted, "
        f"{64 * image * 0.6 / MIB:.1f} MiB measured"
    )
    assert passes.image_bytes(224, "half") == pytest.approx(0.6 * peak_bytes(LITE0, 224))
    passes.correct(1, 128, "half", 10**12)
    assert passes.image_bytes(128, "float32") == MOST_RATIO * image


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_vit"])
def test_a_network_learns_on_a_gpu_what_its_passes_take(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, lines = tiny(architecture), list[str]()
    backbone.report = lines.append
    backbone.measure_memory(IMAGES, PX)
    assert not lines, "a CPU has nothing to learn"
    monkeypatch.setattr("autometa.backbones.build.free_bytes", lambda _: 2**40)
    backbone.measure_memory(IMAGES[:8], PX)
    assert "memory of 8 images of 48 px" in lines[0] and lines[0].startswith(architecture)
    took = measure_peak(lambda: backbone.embed_layers(IMAGES, PX), "cpu")
    predicted = len(IMAGES) * backbone._passes.image_bytes(PX, "float32")
    assert predicted == pytest.approx(took, rel=0.25)


def test_the_batch_of_a_network_follows_its_own_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny("test_resnet")
    monkeypatch.setattr(batches, "free_bytes", lambda _: 3 * 64 * peak_bytes(backbone.spec, PX))
    assert backbone.batch_size(PX) == 64
    backbone._passes.correct(1, PX, "float32", int(peak_bytes(backbone.spec, PX) / 4))
    assert backbone.batch_size(PX) == 256


def test_images_go_to_a_gpu_by_way_of_memory_that_stays_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[Any, ...]] = []

    def pin(images: torch.Tensor) -> torch.Tensor:
        steps.append(("pinned", images.dtype))
        return images

    def move(images: torch.Tensor, device: str, **options: bool) -> torch.Tensor:
        steps.append((device, options))
        return images

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", move)
    images = np.zeros((2, 3, 4, 4), np.uint8)
    to_device(images, "cuda")
    assert steps == [("pinned", torch.uint8), ("cuda", {"non_blocking": True})], "as bytes"
    steps.clear()
    to_device(torch.from_numpy(images), "cpu")
    assert steps == [("cpu", {})]


def test_features_come_from_a_gpu_by_way_of_memory_that_stays_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps, features = list[Any](), torch.arange(6.0).view(2, 3)
    empty = torch.empty

    def pinned(*given: Any, pin_memory: bool, **options: Any) -> torch.Tensor:
        steps.append(pin_memory)
        return empty(*given, **options)

    monkeypatch.setattr(torch, "empty", pinned)
    stream = SimpleNamespace(synchronize=lambda: steps.append("waited"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    assert torch.equal(to_host(features, "cuda"), features) and steps == [True, "waited"]
    copied = to_host(features, "cpu")
    assert torch.equal(copied, features) and copied.data_ptr() != features.data_ptr()


@pytest.mark.parametrize("how", ["read only", "backwards", "plain"])
def test_any_array_of_images_will_do(how: str) -> None:
    images = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    expected = images[::-1].copy() if how == "backwards" else images.copy()
    images = images[::-1] if how == "backwards" else images
    images.flags.writeable = how != "read only"
    assert torch.equal(to_device(images, "cpu"), torch.from_numpy(expected))


def test_a_full_batch_is_not_copied_to_be_padded() -> None:
    with TensorCounter() as counter:
        assert pad_images(IMAGES, len(IMAGES)) is IMAGES
    assert counter.peak_bytes == 0 and len(pad_images(IMAGES, 64)) == 64
