"""The disk cache of features: hits, eviction, damage, several writers, kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import colour_pool

from autometa.backbones import View
from autometa.backbones.feature_files import ABANDONED_S, FeatureFiles
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.feature_table import FeatureTable
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget
from autometa.core.chunks import in_chunks

MEMORY = MemoryBudget(8 * 2**30)
WHAT = {"weights": "abc", "px": 128}


def keys_of(*numbers: int) -> list[bytes]:
    return [number.to_bytes(16, "little") for number in numbers]


def rows(*numbers: int) -> np.ndarray:
    return np.array([[number, number + 0.5] for number in numbers], np.float32)


def shards(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.features"))


def test_what_was_added_is_found_by_other_processes(tmp_path: Path) -> None:
    kind = FeatureFiles(tmp_path).kind(WHAT)
    assert kind.find(keys_of(1)) == {}
    kind.add(keys_of(1, 2), rows(1, 2))
    other = FeatureFiles(tmp_path).kind(WHAT)
    found = other.find(keys_of(2, 3))
    assert list(found) == keys_of(2)
    np.testing.assert_array_equal(found[keys_of(2)[0]], rows(2)[0])
    kind.add(keys_of(3), rows(3))
    assert list(other.find(keys_of(2, 3))) == keys_of(2, 3)
    assert FeatureFiles(tmp_path).kind({**WHAT, "px": 96}).find(keys_of(1)) == {}


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "short", "other"])
def test_damaged_shards_are_ignored_and_removed(tmp_path: Path, damage: str) -> None:
    FeatureFiles(tmp_path).kind(WHAT).add(keys_of(1, 2), rows(1, 2))
    (file,) = shards(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[:-3]
    elif damage == "flip":
        content[-1] ^= 1
    elif damage == "empty":
        content = bytearray()
    elif damage == "short":
        content = content[:5]
    else:
        content[:8] = b"whatever"
    file.write_bytes(content)
    kind = FeatureFiles(tmp_path).kind(WHAT)
    assert kind.find(keys_of(1)) == {}
    assert shards(tmp_path) == []
    kind.add(keys_of(1), rows(1))
    assert list(kind.find(keys_of(1))) == keys_of(1)


def test_shards_of_another_version_are_passed_over_but_stay(tmp_path: Path) -> None:
    FeatureFiles(tmp_path).kind(WHAT).add(keys_of(1), rows(1))
    (file,) = shards(tmp_path)
    content = bytearray(file.read_bytes())
    content[7:8] = b"9"
    file.write_bytes(content)
    kind = FeatureFiles(tmp_path).kind(WHAT)
    assert kind.find(keys_of(1)) == {} and shards(tmp_path) == [file]
    kind.add(keys_of(1), rows(1))
    assert list(kind.find(keys_of(1))) == keys_of(1) and file.exists()


def test_the_shards_used_longest_ago_go_first(tmp_path: Path) -> None:
    free = FeatureFiles(tmp_path).kind(WHAT)
    for number in range(4):
        free.add(keys_of(number), rows(number))
        newest = max(shards(tmp_path), key=lambda f: f.stat().st_mtime_ns)
        os.utime(newest, (1000 + number, 1000 + number))
    size = shards(tmp_path)[0].stat().st_size
    reader = FeatureFiles(tmp_path).kind(WHAT)
    assert list(reader.find(keys_of(0))) == keys_of(0)
    FeatureFiles(tmp_path, cap_bytes=3 * size).evict()
    left = FeatureFiles(tmp_path).kind(WHAT).find(keys_of(0, 1, 2, 3))
    assert list(left) == keys_of(0, 3)
    assert list(reader.find(keys_of(1))) == keys_of(1), "what is mapped outlives its file"


def test_what_killed_writers_left_is_swept_away(tmp_path: Path) -> None:
    kind = FeatureFiles(tmp_path).kind(WHAT)
    kind.add(keys_of(1), rows(1))
    folder = shards(tmp_path)[0].parent
    old, young = folder / "old.1.writing", folder / "young.2.writing"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    then = young.stat().st_mtime - 2 * ABANDONED_S
    os.utime(old, (then, then))
    kind.add(keys_of(2), rows(2))
    assert not old.exists()
    assert young.exists()
    assert list(kind.find(keys_of(1, 2))) == keys_of(1, 2)


def test_a_disk_that_can_not_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    kind = FeatureFiles(blocked).kind(WHAT)
    kind.add(keys_of(1), rows(1))
    assert kind.find(keys_of(1)) == {}


WRITER = """
import sys, numpy as np
from pathlib import Path
from autometa.backbones.feature_files import FeatureFiles
first, root = int(sys.argv[1]), Path(sys.argv[2])
kind = FeatureFiles(root, cap_bytes=2**24).kind({"weights": "abc", "px": 128})
print("ready", flush=True)
number = first
while number < first + int(sys.argv[3]):
    keys = [n.to_bytes(16, "little") for n in range(number, number + 10)]
    kind.add(keys, np.repeat(np.arange(number, number + 10, dtype=np.float32)[:, None], 500, 1))
    number += 10
"""


def start_writer(first: int, root: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(first), str(root), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.medium
def test_two_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    writers = [start_writer(first, tmp_path, 200) for first in (0, 100)]
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    found = FeatureFiles(tmp_path).kind(WHAT).find(keys_of(*range(300)))
    assert len(found) == 300
    assert all((row == int.from_bytes(key, "little")).all() for key, row in found.items())


@pytest.mark.medium
def test_a_writer_killed_in_the_middle_leaves_whole_shards(tmp_path: Path) -> None:
    writer = start_writer(0, tmp_path, 10**9)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    while len(shards(tmp_path)) < 5:
        pass
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=60)
    before = shards(tmp_path)
    found = FeatureFiles(tmp_path).kind(WHAT).find(keys_of(*range(50_000)))
    assert shards(tmp_path) == before, "no shard is damaged"
    assert len(found) == 10 * len(before)
    assert all((row == int.from_bytes(key, "little")).all() for key, row in found.items())


def store_on(disk: Path | None, shelf: BackboneShelf) -> FeatureStore:
    return FeatureStore(shelf, MEMORY, FeatureFiles(disk) if disk else None)


def test_a_second_run_embeds_nothing(
    tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = colour_pool().images[:30]
    keys = list(range(30))
    view = View(tiny_backbone, 32)
    first = store_on(tmp_path, BackboneShelf("cpu")).embed(view, images, keys)
    shelf = BackboneShelf("cpu")

    def no_more(*_: object, **__: object) -> None:
        raise AssertionError("embedded again")

    monkeypatch.setattr(shelf(tiny_backbone), "embed_layers", no_more)
    again = store_on(tmp_path, shelf).embed(view, images, keys)
    assert torch.equal(first, again)
    with pytest.raises(AssertionError, match="embedded again"):
        store_on(tmp_path, shelf).embed(View(tiny_backbone, 48), images, keys)
    with pytest.raises(AssertionError, match="embedded again"):
        store_on(None, shelf).embed(view, images, keys)


def test_other_weights_are_other_features(tiny_backbone: str) -> None:
    one, other = (BackboneShelf("cpu")(tiny_backbone) for _ in range(2))
    assert one.description(32, flip=False) == other.description(32, flip=False)
    assert one.description(32, flip=False) != one.description(32, flip=True)
    third = BackboneShelf("cpu")(tiny_backbone)
    next(iter(third.model.parameters())).data += 1
    assert third.description(32, flip=False) != one.description(32, flip=False)


def test_the_table_grows_and_keeps_its_rows() -> None:
    table = FeatureTable()
    for start in range(0, 50, 7):
        table.add(range(start, start + 7), torch.arange(start, start + 7.0)[:, None].repeat(1, 3))
    assert torch.equal(table.take([40, 3, 3])[:, 0], torch.tensor([40.0, 3, 3]))
    assert 48 in table
    assert 99 not in table


@pytest.mark.medium
def test_running_out_of_memory_halves_the_chunk_and_goes_on() -> None:
    done: list[tuple[int, int]] = []

    def work(start: int, stop: int) -> None:
        if stop - start > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        done.append((start, stop))

    in_chunks(work, 23, 16)
    assert done == [(i, min(i + 4, 23)) for i in range(0, 23, 4)]
