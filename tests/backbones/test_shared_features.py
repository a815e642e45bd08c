"""Features that runs share: computed once, charged in every run, and the same in all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shared_features import KEYS, ROWS, STEPS, SharedFeatures
from autometa.backbones.shelf import BackboneShelf
from autometa.core import clock, journals
from autometa.core.budget import MemoryBudget, stopwatch
from autometa.core.sharing import SharedWork

KIND = {"weights": "a", "px": 16}


@pytest.fixture(autouse=True)
def own_charge(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(clock, "CHARGE", clock.Charge())
    yield


class Network:
    """Means of the channels, and how many images it has seen."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, images: NDArray[np.uint8]) -> torch.Tensor:
        self.seen.append(len(images))
        return torch.from_numpy(images.mean((2, 3), dtype=np.float32))


def batches(count: int, size: int = 8, seed: int = 0) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (size, 3, 4, 4), dtype=np.uint8) for _ in range(count)]


def embed(
    folder: Path, images: list[NDArray[np.uint8]], label: str = "cpu-2", engine: str = "eager"
) -> Network:
    """As one process does, batch by batch; features must be those of the network."""
    features, network = SharedFeatures(SharedWork(folder, label)), Network()
    for batch in images:
        found = features.embed(KIND, engine, batch, network)
        torch.testing.assert_close(found, torch.from_numpy(batch.mean((2, 3), dtype=np.float32)))
    return network


def set_rate(folder: Path, image_s: float) -> None:
    """As if each image had taken so long."""
    (file,) = (folder / "features").glob(f"*/*{STEPS}")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [{"images": row["images"], "seconds": image_s * row["images"]} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.medium
def test_the_second_process_computes_one_batch_and_is_charged_for_the_others(tmp_path: Path) -> None:
    images = batches(5)
    assert embed(tmp_path, images).seen == [8] * 5
    set_rate(tmp_path, 10.0)
    elapsed = stopwatch()
    assert embed(tmp_path, images).seen == [8]
    assert elapsed() == pytest.approx(4 * 80, rel=0.05)
    assert clock.CHARGE.seconds == pytest.approx(4 * 80, rel=0.05)


def test_the_first_batch_of_a_process_tells_no_speed(tmp_path: Path) -> None:
    embed(tmp_path, batches(4))
    (file,) = (tmp_path / "features").glob(f"*/*{STEPS}")
    assert len(file.read_text().splitlines()) == 3


def test_only_images_that_are_new_are_computed_and_the_batch_costs_the_same(tmp_path: Path) -> None:
    images = batches(3)
    embed(tmp_path, images)
    set_rate(tmp_path, 10.0)
    mixed = [images[0], np.concatenate([images[1][:5], batches(1, 3, seed=9)[0]])]
    assert embed(tmp_path, mixed).seen == [8, 3]
    assert clock.CHARGE.seconds == pytest.approx(80, rel=0.05)
    assert embed(tmp_path, mixed).seen == [8]


def test_a_larger_batch_is_computed_so_that_memory_is_used_as_alone(tmp_path: Path) -> None:
    images = [*batches(3, 4), *batches(3, 16, seed=1), *batches(2, 4, seed=2)]
    embed(tmp_path, images)
    assert embed(tmp_path, images).seen == [4, 16]


@pytest.mark.parametrize(("label", "engine"), [("cpu-1", "eager"), ("cpu-2", "openvino")])
def test_other_threads_or_engines_measure_their_own_speed_on_known_features(
    tmp_path: Path, label: str, engine: str
) -> None:
    images = batches(5)
    embed(tmp_path, images)
    assert embed(tmp_path, images, label, engine).seen == [8, 8]
    assert embed(tmp_path, images, label, engine).seen == [8]


def test_another_kind_shares_nothing(tmp_path: Path) -> None:
    (images,) = batches(1)
    embed(tmp_path, [images, images])
    features, network = SharedFeatures(SharedWork(tmp_path, "cpu-2")), Network()
    for _ in range(2):
        features.embed({**KIND, "px": 32}, "eager", images, network)
    assert network.seen == [8, 8]


def test_what_a_kill_left_half_written_is_not_read(tmp_path: Path) -> None:
    images = batches(3)
    embed(tmp_path, images)
    (file,) = (tmp_path / "features").glob(f"*/*{ROWS}")
    file.write_bytes(file.read_bytes()[:-5])  # of the last row of the last batch
    (steps,) = (tmp_path / "features").glob(f"*/*{STEPS}")
    steps.write_text(steps.read_text() + '{"images": 8, "sec')
    assert embed(tmp_path, images).seen == [8, 1]


def test_keys_match_rows_after_a_write_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, real, failed = batches(5), Path.open, list[Path]()

    def fail(file: Path, *arguments: Any, **values: Any) -> Any:
        if file.suffix == KEYS and len(failed) < 2:  # the rows of the batch are there, its keys are not
            failed.append(file)
            raise OSError(28, "No space left on device")
        return real(file, *arguments, **values)

    monkeypatch.setattr(Path, "open", fail)
    assert embed(tmp_path, images).seen == [8] * 5
    assert failed[0] != failed[1]
    assert embed(tmp_path, images).seen == [8, 8]  # `embed` compares what is read with the network


def test_a_folder_that_cannot_be_written_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **values: Any) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(journals, "append", fail)
        assert embed(tmp_path, batches(3)).seen == [8] * 3
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", fail)
        assert embed(tmp_path / "other", batches(3)).seen == [8] * 3


@pytest.mark.medium
def test_a_store_gives_what_it_gives_alone_and_knows_the_recorded_speed(
    tmp_path: Path, tiny_backbone: str
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 32, 32), dtype=np.uint8)
    view, keys = View(tiny_backbone, 32), list(range(200))

    def store(shared: bool) -> FeatureStore:
        work = SharedWork(tmp_path, "cpu-2") if shared else None
        return FeatureStore(BackboneShelf("cpu"), MemoryBudget(4 * 10**9), shared=SharedFeatures.of(work))

    alone = store(shared=False).embed(view, images, keys)
    torch.testing.assert_close(store(shared=True).embed(view, images, keys), alone)
    set_rate(tmp_path, 2.0)
    second = store(shared=True)
    elapsed = stopwatch()
    torch.testing.assert_close(second.embed(view, images, keys), alone)
    assert elapsed() == pytest.approx(2.0 * (200 - 64), rel=0.1)
    assert second.speed(view).percentile_s(95) == pytest.approx(2.0, rel=0.1)
