"""Weights of saved networks in half precision: half the bytes, the same directions, and old files are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from engine_cases import ARCHITECTURES, IMAGES, PX, tiny

from autometa.backbones import View
from autometa.backbones.half_weights import LEAST_COSINE, draw_clouds, embeds_alike, halve, restore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.files import load_tensors, save_tensors


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_half_the_bytes_embed_alike(architecture: str) -> None:
    backbone, other = tiny(architecture), tiny(architecture)
    state = backbone.model.state_dict()
    assert embeds_alike(backbone)
    assert sum(t.nbytes for t in halve(state).values()) < 0.6 * sum(t.nbytes for t in state.values())
    other.model.load_state_dict(restore(halve(state)))
    assert {t.dtype for t in other.model.state_dict().values()} <= {torch.float32, torch.int64}
    alike = F.cosine_similarity(backbone.embed(IMAGES, PX), other.embed(IMAGES, PX))
    assert float(alike.min()) >= LEAST_COSINE
    assert not torch.equal(backbone.embed(IMAGES, PX), other.embed(IMAGES, PX)), "weights are rounded"


def test_biases_and_whole_numbers_stay_as_they_are() -> None:
    state = {"weight": torch.rand(3, 3), "bias": torch.rand(3), "count": torch.tensor(7)}
    halved = halve(state)
    assert halved["weight"].dtype == torch.float16
    assert halved["bias"] is state["bias"] and halved["count"] is state["count"]


def test_the_clouds_are_always_the_same_and_not_alike() -> None:
    clouds = draw_clouds(40)
    assert torch.equal(clouds, draw_clouds(40)) and clouds.shape[1:] == (3, 40, 40)
    assert clouds.float().std() > 30 and clouds.flatten(1).float().std(0).min() > 0


def spoil(shelf: BackboneShelf, name: str, factor: float) -> None:
    """Scale the numbers of the first kernel, so that half precision loses them."""
    with torch.no_grad():
        kernel = next(p for p in shelf(name).model.parameters() if p.ndim == 4)
        kernel.mul_(factor)


def test_a_learner_has_half_weights_and_says_the_same_again(tiny_backbone: str, tmp_path: Path) -> None:
    view = View(tiny_backbone, PX)
    shelf = BackboneShelf("cpu")
    name = shelf.save(tmp_path, [view])[tiny_backbone]
    saved = load_tensors(tmp_path, name)
    assert any(tensor.dtype == torch.float16 for tensor in saved.values())
    full = sum(tensor.nbytes for tensor in shelf.state(tiny_backbone).values())
    assert (tmp_path / name).stat().st_size < 0.6 * full
    loaded = BackboneShelf("cpu", {tiny_backbone: saved})
    assert next(loaded(tiny_backbone).model.parameters()).dtype == torch.float32
    again = loaded.save(tmp_path, [view])[tiny_backbone]
    assert all(torch.equal(saved[key], tensor) for key, tensor in load_tensors(tmp_path, again).items())
    later = BackboneShelf("cpu", {tiny_backbone: load_tensors(tmp_path, again)})
    assert later(tiny_backbone).digest == loaded(tiny_backbone).digest, "rounding twice changes nothing"
    assert torch.equal(later(tiny_backbone).embed(IMAGES, PX), loaded(tiny_backbone).embed(IMAGES, PX))


def test_weights_that_half_precision_would_lose_stay_in_full(tiny_backbone: str, tmp_path: Path) -> None:
    shelf = BackboneShelf("cpu")
    spoil(shelf, tiny_backbone, 1e-9)
    assert not embeds_alike(shelf(tiny_backbone))
    name = shelf.save(tmp_path, [View(tiny_backbone, PX)])[tiny_backbone]
    assert not any(tensor.dtype == torch.float16 for tensor in load_tensors(tmp_path, name).values())
    large = BackboneShelf("cpu")
    spoil(large, tiny_backbone, 1e9)
    assert not embeds_alike(large(tiny_backbone)), "infinite in half precision"


def test_weights_of_older_learners_are_read(tiny_backbone: str, tmp_path: Path) -> None:
    shelf = BackboneShelf("cpu")
    name = save_tensors(tmp_path, "backbone-old", shelf.state(tiny_backbone))
    loaded = BackboneShelf("cpu", {tiny_backbone: load_tensors(tmp_path, name)})
    assert loaded(tiny_backbone).digest == shelf(tiny_backbone).digest
