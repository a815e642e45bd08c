"""The disk cache of features beside other files, in little memory, and with engines of less precision."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autometa.backbones import Backbone, View, feature_files, pending_features
from autometa.backbones.engines import ENGINES, EngineSpec
from autometa.backbones.feature_files import ABANDONED_S, FeatureFiles
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.feature_table import FeatureTable
from autometa.backbones.network import PixelNetwork
from autometa.backbones.pending_features import PendingFeatures
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget
from autometa.data.images import hash_images

MEMORY = MemoryBudget(8 * 2**30)
PX = 32
IMAGES = np.random.default_rng(0).integers(0, 256, (120, 3, PX, PX), dtype=np.uint8)
KEYS = list(range(len(IMAGES)))


def age(file: Path) -> None:
    then = time.time() - 2 * ABANDONED_S
    os.utime(file, (then, then))


def test_files_of_others_stay_where_a_folder_in_use_is_the_cache(tmp_path: Path) -> None:
    kind = FeatureFiles(tmp_path, cap_bytes=1).kind({"weights": "abc"})
    kind.add([b"0" * 16], np.zeros((1, 4), np.float32))  # larger than the cap: it goes at once
    theirs = [
        tmp_path / "thesis" / "chapter.tex",
        tmp_path / "thesis" / "more.features",
        tmp_path / "thesis" / "draft.writing",
        tmp_path / "file.writing",
        next(path for path in tmp_path.iterdir() if path.is_dir()) / "notes.txt",
    ]
    for file in theirs:
        file.parent.mkdir(exist_ok=True)
        file.write_text("the work of years")
        age(file)
    kind.add([b"1" * 16], np.zeros((1, 4), np.float32))
    assert [file for file in theirs if not file.exists()] == []


def test_a_key_that_is_added_again_changes_nothing() -> None:
    table = FeatureTable()
    table.add([1, 2], torch.tensor([[1.0], [2.0]]))
    table.add([2, 3, 3], torch.tensor([[9.0], [3.0], [3.0]]))
    table.add([4], torch.tensor([[4.0]]))
    assert table.take([1, 2, 3, 4]).flatten().tolist() == [1, 2, 3, 4]
    assert len(table) == 4


def test_many_shards_take_few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_files, "MOST_MAPPED", 3)
    keys = [bytes([number] * 16) for number in range(12)]
    writer = FeatureFiles(tmp_path).kind({})
    for number, key in enumerate(keys):
        writer.add([key, bytes([100 + number] * 16)], np.full((2, 5), number, np.float32))
    lines: list[str] = []
    kind = FeatureFiles(tmp_path, report=lines.append).kind({})
    before = len(list(Path("/proc/self/fd").iterdir()))
    found = kind.find(keys[::-1])
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3
    assert list(found) == keys[::-1]
    assert all((row == key[0]).all() and row.shape == (5,) for key, row in found.items())
    for file in tmp_path.glob("*/*.features"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    kept = kind.find(keys)
    assert len(kept) == 3 and len(lines) == 9, "what is damaged later is found when it is read"
    for file in tmp_path.glob("*/*.features"):
        file.unlink()
    assert kind.find(keys).keys() == kept.keys()


@pytest.mark.parametrize("error", [MemoryError("copying"), RuntimeError("can't allocate memory")])
def test_memory_that_runs_out_while_a_shard_is_written_costs_only_the_shard(
    tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    view, shelf = View(tiny_backbone, PX), BackboneShelf("cpu")
    truth = FeatureStore(shelf, MEMORY).embed(view, IMAGES, KEYS)
    writes = []

    def hash_if_there_is_room(images: NDArray[np.uint8]) -> list[bytes]:
        writes.append(len(images))
        if len(writes) == 1:
            raise error
        return hash_images(images)

    monkeypatch.setattr(pending_features, "SHARD_ROWS", 32)
    monkeypatch.setattr(pending_features, "hash_images", hash_if_there_is_room)
    lines: list[str] = []
    store = FeatureStore(shelf, MEMORY, FeatureFiles(tmp_path, report=lines.append))
    assert torch.equal(store.embed(view, IMAGES, KEYS), truth)
    assert len(store._tables[view.source]) == len(KEYS)
    (line,) = lines
    assert "not enough memory" in line and "goes on without it" in line
    again = FeatureStore(shelf, MEMORY, FeatureFiles(tmp_path)).embed(view, IMAGES, KEYS)
    torch.testing.assert_close(again, truth)


def test_a_shard_for_which_memory_is_short_is_told_as_a_full_disk_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    lines: list[str] = []
    kind = FeatureFiles(tmp_path, report=lines.append).kind({})
    monkeypatch.setattr(np, "ascontiguousarray", full)
    for key in (b"0" * 16, b"1" * 16):
        kind.add([key], np.zeros((1, 4), np.float32))
    (line,) = lines
    assert "not enough memory" in line and list(tmp_path.rglob("*.*")) == []


class Rounded:
    """An engine of half precision, which fails after so many calls."""

    def __init__(self, network: PixelNetwork, px: int, device: str, *, calls: int) -> None:
        self.network, self.left = network, calls

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("a number is too large for half precision")
        output: torch.Tensor = self.network(images)
        return output.half().float()


def prefer_rounded(monkeypatch: pytest.MonkeyPatch, name: str, calls: int) -> tuple[BackboneShelf, Backbone]:
    def build(network: PixelNetwork, px: int, device: str) -> Rounded:
        return Rounded(network, px, device, calls=calls)

    monkeypatch.setitem(ENGINES, "rounded", EngineSpec("rounded", build, 0.01, 5.0, precision="half"))
    shelf = BackboneShelf("cpu")
    shelf(name).prefer("rounded", PX)
    return shelf, shelf(name)


def test_features_of_less_precision_are_found_by_a_later_run(
    tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, first = View(tiny_backbone, PX), None
    for calls in (10**6, 1):  # the second run checks its engine, and computes nothing
        shelf, backbone = prefer_rounded(monkeypatch, tiny_backbone, calls)
        store = FeatureStore(shelf, MEMORY, FeatureFiles(tmp_path), ahead=10**6)
        found = store.embed(view, IMAGES, KEYS)
        choice = backbone.choice(PX)
        assert choice is not None and choice.name == "rounded"
        assert first is None or torch.equal(found, first)
        first = found
    assert len(list(tmp_path.glob("*/*.features"))) == 1


def test_no_feature_of_less_precision_is_kept_as_float32(
    tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, backbone = prefer_rounded(monkeypatch, tiny_backbone, calls=2)  # the check, and a batch
    monkeypatch.setattr(Backbone, "batch_size", lambda *_: 32)
    view = View(tiny_backbone, PX)
    FeatureStore(shelf, MEMORY, FeatureFiles(tmp_path), ahead=10**6).embed(view, IMAGES, KEYS)
    assert backbone.precision(PX) == "float32"
    content = hash_images(IMAGES)
    truth = dict(zip(content, backbone.embed_layers(IMAGES, PX), strict=True))
    for precision, batches in (("half", range(1)), ("float32", range(2, 4))):
        description = backbone.description(PX, flip=False) | {"precision": precision}
        found = FeatureFiles(tmp_path).kind(description).find(content)
        assert found.keys() == {key for batch in batches for key in content[32 * batch : 32 * (batch + 1)]}
        for key, row in found.items():
            expected = truth[key].half().float() if precision == "half" else truth[key]
            torch.testing.assert_close(torch.from_numpy(row.copy()), expected)


def test_no_image_has_no_feature_in_a_store_that_has_none(tiny_backbone: str) -> None:
    shelf, none = BackboneShelf("cpu"), np.empty((0, 3, PX, PX), np.uint8)
    for layers in (("last",), ("last", "stage4")):
        view, store = View(tiny_backbone, PX, layers=layers), FeatureStore(shelf, MEMORY)
        empty = store.embed(view, none, [])
        assert empty.shape[0] == 0 and store.take(view, []).shape == empty.shape
        assert empty.shape[1:] == store.embed(view, IMAGES[:2], [0, 1]).shape[1:]
        assert store.embed(view, none, []).shape == empty.shape


def test_without_a_cache_nothing_is_pending() -> None:
    pending = PendingFeatures(IMAGES, None)
    pending.keep([0], torch.zeros(1, 2), "float32")
    assert pending._features == []
