"""Files that are gone, cut short, or have one byte changed: models are refused in a line, caches are made anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import POOL, SmallRuns, answers_well, choice_of, queries, support
from synthetic import write_meta_album

from autometa.backbones.feature_files import FeatureFiles
from autometa.backbones.shared_features import SharedKind, StepCosts
from autometa.classifier.estimator import FewShotClassifier
from autometa.core import files, journals
from autometa.core.errors import ArtifactError, AutometaError
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.planning.stage_log import JOURNAL
from ingestion.albums import read_meta_album
from ingestion.image_cache import ImageCache
from ingestion.images import decode_dataset

PLACES = (0.0, 0.03, 0.2, 0.5, 0.8, 0.999)
"""Of the bytes that are changed, as shares of the file: in its header, its content and its end."""


def flip(file: Path, place: float, bit: int = 0) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << bit
    file.write_bytes(content)


def damages() -> list[tuple[str, Callable[[Path], None]]]:
    """Everything that is done to a file, with a name."""

    def flipping(place: float, bit: int) -> Callable[[Path], None]:
        return lambda file: flip(file, place, bit)

    flips = [(f"bit {b} at {p}", flipping(p, b)) for p in PLACES for b in (0, 5)]
    return [
        ("gone", Path.unlink),
        ("empty", lambda file: file.write_bytes(b"")),
        ("half", lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])),
        *flips,
    ]


def refused(load: Callable[[Path], Any], folder: Path, file: Path, what: str) -> bool:
    """Whether loading a folder tells, in one line, that this file of it is damaged."""
    try:
        load(folder)
    except AutometaError as error:
        line = str(error)
        assert isinstance(error, ArtifactError) and file.name in line and "\n" not in line, (what, line)
        assert "learn anew" in line or "no saved" in line or "holds no" in line, (what, line)
        return True
    return False


def check_every_file(
    folder: Path, scratch: Path, load: Callable[[Path], Any], same: Callable[[Path], bool], pattern: str = "*"
) -> int:
    """Damage each file of a model in every way; what is not refused is the model as it was. How many were refused."""
    count = 0
    for file in sorted(path for path in folder.rglob(pattern) if path.is_file()):
        for what, damage in damages():
            copy = scratch / "damaged"
            shutil.copytree(folder, copy, copy_function=shutil.copyfile)
            damage(copy / file.relative_to(folder))
            if refused(load, copy, file, what):
                count += 1
            else:  # a blank became another one
                assert what.startswith("bit") and same(copy), (file.name, what)
            shutil.rmtree(copy)
    return count


@pytest.mark.medium
def test_every_damaged_file_of_a_learner_is_named(tmp_path: Path, small_runs: SmallRuns) -> None:
    (tmp_path / "run").mkdir()
    small_runs(tmp_path / "run")
    model, chosen = tmp_path / "model", choice_of(tmp_path / "run")
    learner = load_learner(tmp_path / "run")
    assert isinstance(learner, Portfolio)
    model.mkdir()
    learner.save(model)
    number = sum(path.is_file() for path in model.rglob("*"))
    assert number == 3
    count = check_every_file(model, tmp_path, load_learner, lambda copy: choice_of(copy) == chosen)
    assert count > 0.9 * number * len(damages())


@pytest.mark.medium
def test_every_damaged_file_of_a_classifier_is_named(
    tmp_path: Path, tiny_backbone: str, eager_only: None
) -> None:
    images, labels, _ = support()
    model = tmp_path / "model"
    FewShotClassifier(preset=tiny_backbone).fit(np.moveaxis(images, 1, -1), labels).save(model)
    asked = np.moveaxis(POOL.images[queries()], 1, -1)
    expected = FewShotClassifier.load(model).predict_proba(asked)

    def same(copy: Path) -> bool:
        return np.allclose(FewShotClassifier.load(copy).predict_proba(asked), expected)

    names = {path.name.partition("-")[0] for path in model.iterdir()}
    assert names >= {"classifier.json", "learner.json", "support"}
    load = FewShotClassifier.load
    count = sum(
        check_every_file(model, tmp_path, load, same, name) for name in ("classifier.json", "support-*")
    )
    assert count > 0.9 * 2 * len(damages())


@pytest.mark.medium
@pytest.mark.parametrize("stem", ["learner.json", "backbone-*", "metrics-*"])
def test_a_later_run_replaces_a_damaged_learner(tmp_path: Path, small_runs: SmallRuns, stem: str) -> None:
    small_runs(tmp_path)
    chosen = choice_of(tmp_path)
    (file,) = tmp_path.glob(stem)
    flip(file, 0.7)
    lines = small_runs(tmp_path)
    (told,) = [line for line in lines if "of an earlier run cannot be used" in line]
    assert file.name in told
    assert choice_of(tmp_path) == chosen
    assert not any("stopped early" in line for line in lines), lines


@pytest.mark.parametrize(("place", "bit"), [(0.0, 0), (0.3, 2), (0.6, 7), (0.98, 1)])
def test_a_damaged_journal_costs_what_stands_behind_it(tmp_path: Path, place: float, bit: int) -> None:
    journal, told = tmp_path / JOURNAL, list[str]()
    for number in range(20):
        journals.append(journal, {"stage": "views", "number": number})
    flip(journal, place, bit)
    journals.tidy_folder(tmp_path, JOURNAL, told.append)
    kept = journals.read(journal)
    assert len(kept) == 20 or (len(kept) < 20 and "damaged end is cut off" in told[0])
    assert len(kept) >= int(20 * place) - 1


@pytest.mark.medium
def test_a_journal_in_which_a_name_has_changed_stops_no_search(tmp_path: Path, small_runs: SmallRuns) -> None:
    small_runs(tmp_path)
    text = (tmp_path / JOURNAL).read_text()
    (tmp_path / JOURNAL).write_text(text.replace('"kind"', '"kine"'))
    lines = small_runs(tmp_path)
    assert not any("stopped early" in line for line in lines), lines
    assert any("damaged end is cut off" in line for line in lines)
    assert answers_well(tmp_path) == "final"


@pytest.mark.parametrize(("what", "damage"), damages()[1:], ids=[name for name, _ in damages()[1:]])
def test_a_damaged_file_of_the_feature_cache_is_deleted_and_told(
    tmp_path: Path, what: str, damage: Callable[[Path], None]
) -> None:
    keys, features = [bytes([n] * 16) for n in range(8)], np.arange(32, dtype=np.float32).reshape(8, 4)
    FeatureFiles(tmp_path).kind({"a": 1}).add(keys, features)
    (shard,) = tmp_path.glob("*/*")
    damage(shard)
    told: list[str] = []
    kind = FeatureFiles(tmp_path, report=told.append).kind({"a": 1})
    assert kind.find(keys) == {} == kind.find(keys), what
    (line,) = told
    assert shard.name in line and "what it held is computed again" in line
    assert not shard.exists()
    kind.add(keys, features)
    assert len(kind.find(keys)) == 8


@pytest.mark.parametrize(("what", "damage"), damages(), ids=[name for name, _ in damages()])
@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_a_damaged_image_cache_is_made_again(
    tmp_path: Path, what: str, damage: Callable[[Path], None], suffix: str
) -> None:
    dataset = read_meta_album(write_meta_album(tmp_path / "D", [3, 3]))
    broken = tmp_path / "D" / "images" / dataset.files[1].name
    broken.write_bytes(b"no image")
    expected = decode_dataset(dataset, 16, tmp_path)
    images = np.array(expected.images)
    (file,) = (tmp_path / "images").glob(f"*.{suffix}")
    damage(file)
    again = decode_dataset(dataset, 16, tmp_path)
    assert np.array_equal(again.images, images) and again.broken == expected.broken
    assert (again.note == "") == (what == "gone"), again.note


def test_images_written_before_a_power_cut_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = read_meta_album(write_meta_album(tmp_path / "D", [3, 3]))
    expected = np.array(decode_dataset(dataset, 16, tmp_path).images)
    (notes,), (array,) = (tmp_path / "images").glob("*.json"), (tmp_path / "images").glob("*.npy")
    key = array.stem
    monkeypatch.setattr("ingestion.image_cache.boot_id", lambda: "the next start")
    assert ImageCache(tmp_path / "images").find(key) is not None
    assert json.loads(notes.read_text())["boot"] == "the next start"
    monkeypatch.setattr("ingestion.image_cache.boot_id", lambda: "one more")
    monkeypatch.setattr("ingestion.image_cache._stamp", lambda status: [0])  # as the file system restored it
    flip(array, 0.9)
    again = decode_dataset(dataset, 16, tmp_path)
    assert np.array_equal(again.images, expected) and "were changed" in again.note


def test_files_of_earlier_versions_have_no_checksum_and_are_read(tmp_path: Path) -> None:
    files.save_file({"a": torch.ones(3)}, tmp_path / "weights-1.safetensors")
    assert torch.equal(files.load_tensors(tmp_path, "weights-1.safetensors")["a"], torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_of_every_kind_have_a_checksum(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.ones(2, 3).to(dtype)
    tensors = {"one": whole, "turned": whole.T, "none": whole[:0], "single": torch.tensor(1).to(dtype)}
    files.write_tensors(tmp_path / "kinds.safetensors", tensors)
    read = files.load_tensors(tmp_path, "kinds.safetensors")
    assert all(torch.equal(read[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("damage", ["zeros", "flip"])
def test_damaged_rows_that_runs_of_a_grid_share_are_computed_again(tmp_path: Path, damage: str) -> None:
    images = POOL.images[:8]
    computed: list[int] = []

    def compute(batch: np.ndarray) -> torch.Tensor:
        computed.append(len(batch))
        return torch.from_numpy(batch.reshape(len(batch), -1)[:, :6].astype(np.float32))

    def embed() -> torch.Tensor:
        kind = SharedKind(tmp_path, StepCosts(tmp_path / "costs.steps.jsonl"))
        kind.embed(images[:2], compute)  # the first batch is always computed
        kind.embed(images[:8], compute)  # and so is a larger one
        kind.embed(images[2:8], compute)
        return kind.embed(images[:8], compute)

    expected = embed()
    (rows,) = tmp_path.glob("*.rows")
    computed.clear()
    assert torch.equal(embed(), expected)
    whole = list(computed)
    content = rows.read_bytes()
    rows.write_bytes(bytes(len(content)) if damage == "zeros" else bytes(byte ^ 1 for byte in content))
    computed.clear()
    assert torch.equal(embed(), expected)
    assert sum(computed) > sum(whole)
