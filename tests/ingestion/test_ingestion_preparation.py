"""How images are prepared: kept with a learner, and part of the key of the cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import odd_folders as folders
import odd_images as images
import pytest
from synthetic import MakeBundle, write_meta_album

from ingestion.errors import InputError
from ingestion.images import decode_dataset
from ingestion.pixels import decode_image
from ingestion.preparation import Preparation, common_preparation
from ingestion.prepare import prepare
from ingestion.settings import IngestionSettings
from ingestion.sources import read_source
from ingestion.survey import choose_preparation, choose_preparations

PX = 16


@pytest.mark.parametrize(
    "preparation", [Preparation(128), Preparation(96, 0.5, 12.0, 128), Preparation(64, 0, 4095)]
)
def test_a_preparation_survives_json(preparation: Preparation) -> None:
    assert Preparation.from_json(json.loads(json.dumps(preparation.to_json()))) == preparation


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"px": "128"},
        {"px": 0},
        {"px": 128, "ground": 300},
        {"px": 128, "grey_low": 1},
        {"px": 128, "grey_low": 2, "grey_high": 1},
        {"px": 128, "grey_low": "a", "grey_high": "b"},
        {"px": 128, "colour": 1},
    ],
)
def test_a_damaged_preparation_is_refused(content: object) -> None:
    with pytest.raises(InputError, match="preparation of images"):
        Preparation.from_json(content)


def test_ordinary_images_have_the_usual_preparation_whatever_they_are(tmp_path: Path) -> None:
    source = choose_preparations(read_source(folders.fill(tmp_path / "set")), PX)
    assert source.preparation("set", PX) == Preparation(PX) and not source.notes
    assert Preparation(PX).key == str(PX)


def test_a_metadl_root_keeps_the_preparation_of_the_format(tmp_path: Path) -> None:
    album = write_meta_album(tmp_path / "A", [2, 2])
    for file in (album / "images").iterdir():
        images.drawing(3, 255).save(file)
    album_alone = choose_preparations(read_source(album), PX)
    assert album_alone.preparation("A", PX).ground == 0
    (tmp_path / "info").mkdir()
    (tmp_path / "info" / "meta_splits.txt").write_text(json.dumps({"meta-train": ["A"], "meta-test": ["A"]}))
    assert choose_preparations(read_source(tmp_path), PX).preparation("A", PX) == Preparation(PX)


def test_other_images_decode_as_those_of_the_dataset(tmp_path: Path) -> None:
    """What a user classifies later, with the preparation that a run has written."""
    images.twelve_bits(tmp_path / "set")
    source = choose_preparations(read_source(tmp_path / "set"), PX)
    dataset, preparation = source.datasets["set"], source.preparation("set", PX)
    decoded = decode_dataset(dataset, preparation, tmp_path / "cache")
    again = Preparation.from_json(json.loads(json.dumps(preparation.to_json())))
    np.testing.assert_array_equal(decode_image(dataset.files[5].read_bytes(), again), decoded.images[5])
    usual = decode_dataset(dataset, PX, tmp_path / "cache")
    assert usual.images.max() < 16 and decoded.file != usual.file


def test_numbers_that_are_none_are_black() -> None:
    values = np.full((8, 8), 5.0, np.float32)
    values[:, 4:] = np.nan
    decoded = decode_image(images.deep(values), Preparation(8, 1.0, 5.0))
    assert (decoded[:, :, :4] == 255).all() and (decoded[:, :, 4:] == 0).all()


def test_minus_one_is_a_grey_like_others() -> None:
    """Only where a file says that a grey is transparent does it become the ground."""
    values = np.full((8, 8), -1.0, np.float32)
    values[:, 4:] = 1.0
    decoded = decode_image(images.deep(values), Preparation(8, -1.0, 1.0, ground=255))
    assert (decoded[:, :, :4] == 0).all() and (decoded[:, :, 4:] == 255).all()


def test_the_parts_of_a_split_share_one_preparation(tmp_path: Path) -> None:
    for part, classes in (("train", "ab"), ("test", "cd")):
        for number, name in enumerate(classes):
            high = 100 if part == "train" else 1000
            folders.put(
                tmp_path / "set" / part / name, images.deep(images.ramp(number, 0, high, np.uint16)), "0.tif"
            )
    source = choose_preparations(read_source(tmp_path / "set"), PX)
    one, other = (source.preparation(name, PX) for name in source.datasets)
    assert one == other and one.grey_high is not None and one.grey_high > 900


def test_what_datasets_have_in_common_is_used_for_others() -> None:
    deep, drawn = Preparation(PX, 0, 1, 0), Preparation(PX, ground=0)
    assert common_preparation(PX, [deep, deep]) == deep
    assert common_preparation(PX, [deep, drawn]) == drawn
    assert common_preparation(PX, []) == Preparation(PX)


def test_a_run_tells_and_hands_on_how_images_are_prepared(tmp_path: Path, make_bundle: MakeBundle) -> None:
    images.twelve_bits(tmp_path / "set")
    settings = IngestionSettings(
        input_data_dir=tmp_path / "set",
        submission=make_bundle(),
        output_dir=tmp_path / "out",
        image_size=PX,
        query_images_per_class=1,
        test_tasks_per_dataset=1,
        cache_dir=tmp_path / "cache",
    )
    (tmp_path / "scratch").mkdir()
    notes: list[str] = []
    prepared = prepare(settings, tmp_path / "scratch", lambda event: notes.append(event.text))
    assert prepared.preparation.grey_high is not None and 4000 < prepared.preparation.grey_high < 4096
    assert any("become black to white" in note for note in notes)
    assert prepared.images["set"].images.max() > 240


def test_deep_images_of_one_value_are_no_division_by_zero(tmp_path: Path) -> None:
    for name in "ab":
        folders.put(tmp_path / "set" / name, images.deep(np.full((8, 8), 0.5, np.float32)), "0.tif")
    preparation, _ = choose_preparation(list(read_source(tmp_path / "set").datasets.values()), PX)
    assert (preparation.grey_low, preparation.grey_high) == (0.0, 1.5)
