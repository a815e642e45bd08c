"""Datasets on disk, the image cache and the splits."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import class_image, write_meta_album

from ingestion.albums import read_meta_album
from ingestion.datasets import Dataset, read_class_folders
from ingestion.errors import InputError
from ingestion.images import decode_dataset
from ingestion.pixels import decode_image
from ingestion.sources import read_source
from ingestion.splits import queries_for, split_source
from ingestion.tasks import TaskConfig


def write_class_folders(folder: Path, class_sizes: list[int]) -> Path:
    for label, size in enumerate(class_sizes):
        (folder / f"kind {label}").mkdir(parents=True)
        for number in range(size):
            class_image(label, number).save(folder / f"kind {label}" / f"{number}.png")
    return folder


def write_splits(root: Path, content: object) -> None:
    (root / "info").mkdir(parents=True, exist_ok=True)
    (root / "info" / "meta_splits.txt").write_text(json.dumps(content))


def test_class_ids_follow_the_first_appearance(tmp_path: Path) -> None:
    folder = write_meta_album(tmp_path / "D", [2, 1])
    rows = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join([rows[0], rows[3], rows[1], rows[2]]))
    dataset = read_meta_album(folder)
    assert dataset.class_names == ("class 1", "class 0")
    assert [rows.tolist() for rows in dataset.rows_of_class] == [[0], [1, 2]]


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("labels.csv", "FILE_NAME,KIND\na.png,b", "CATEGORY"),
        ("labels.csv", "FILE_NAME,CATEGORY\n../a.png,b", "outside"),
        ("labels.csv", "FILE_NAME,CATEGORY\n,b", "line 2"),
        ("labels.csv", "FILE_NAME,CATEGORY\n", "no image"),
        ("info.json", "{", "JSON"),
        ("info.json", '{"image_column_name": 3}', "image_column_name"),
    ],
)
def test_damaged_datasets_are_named(tmp_path: Path, file: str, content: str, named: str) -> None:
    folder = write_meta_album(tmp_path / "D", [2, 2])
    (folder / file).write_text(content)
    with pytest.raises(InputError, match=named) as caught:
        read_meta_album(folder)
    assert file in str(caught.value)


def test_class_folders_are_a_dataset(tmp_path: Path) -> None:
    dataset = read_class_folders(write_class_folders(tmp_path / "mine", [3, 2]))
    assert dataset.class_names == ("kind 0", "kind 1")
    assert dataset.class_sizes.tolist() == [3, 2]


def test_the_layout_is_recognised(tmp_path: Path) -> None:
    write_meta_album(tmp_path / "root" / "A", [5] * 4)
    write_meta_album(tmp_path / "root" / "B", [5] * 4)
    write_class_folders(tmp_path / "folders", [3, 3])
    assert list(read_source(tmp_path / "root").datasets) == ["A", "B"]
    assert list(read_source(tmp_path / "root" / "A").datasets) == ["A"]
    assert list(read_source(tmp_path / "folders").datasets) == ["folders"]
    write_splits(tmp_path / "root", {"meta-train": ["B"], "meta-test": ["A"]})
    assert read_source(tmp_path / "root").test_names == ("A",)


def test_folders_without_a_dataset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match="subfolder of images per class"):
        read_source(tmp_path)
    write_splits(tmp_path, {"meta-train": "A"})
    with pytest.raises(InputError, match="meta-train"):
        read_source(tmp_path)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_images_become_rgb_with_transparency_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (decode_image(encoded(clear), 8) == 255).all()
    grey = Image.new("L", (8, 8), 77)
    assert (decode_image(encoded(grey), 16) == 77).all()
    deep = Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16))
    assert (decode_image(encoded(deep), 8) == 40_000 >> 8).all()
    palette = Image.new("RGB", (8, 8), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert decode_image(encoded(palette), 8).shape == (3, 8, 8)


def test_images_are_decoded_once_and_broken_ones_named(tmp_path: Path) -> None:
    folder = write_meta_album(tmp_path / "D", [3, 3])
    broken = sorted((folder / "images").iterdir())[1]
    broken.write_bytes(b"no image")
    progress: list[int] = []
    decoded = decode_dataset(
        read_meta_album(folder), 16, tmp_path / "c", lambda done, total: progress.append(done)
    )
    assert decoded.images.shape == (5, 3, 16, 16)
    assert len(decoded.dataset.files) == 5
    assert len(decoded.broken) == 1
    assert broken.name in decoded.broken[0]
    assert progress
    again = decode_dataset(
        read_meta_album(folder), 16, tmp_path / "c", lambda done, total: pytest.fail("twice")
    )
    assert np.array_equal(again.images, decoded.images)
    assert len(list((tmp_path / "c" / "images").glob("*.npy"))) == 1


def test_changed_content_is_decoded_anew(tmp_path: Path) -> None:
    folder = write_meta_album(tmp_path / "D", [2])
    first = decode_dataset(read_meta_album(folder), 16, tmp_path / "c")
    class_image(9, 9).save(sorted((folder / "images").iterdir())[0])
    second = decode_dataset(read_meta_album(folder), 16, tmp_path / "c")
    assert not np.array_equal(first.images[0], second.images[0])


def test_missing_images_are_set_aside_and_none_left_is_an_error(tmp_path: Path) -> None:
    folder = write_meta_album(tmp_path / "D", [2])
    for file in (folder / "images").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="none of its 2 images"):
        decode_dataset(read_meta_album(folder), 16, tmp_path / "c")


def test_classes_are_split_disjoint_and_by_the_seed_alone(tmp_path: Path) -> None:
    write_meta_album(tmp_path / "A", [10] * 10)
    source = read_source(tmp_path / "A")
    config = TaskConfig(query_images_per_class=3)
    split = split_source(source, config, seed=1)
    train, test = split.train[0], split.test[0]
    assert set(train.class_names).isdisjoint(test.class_names)
    assert (len(train.class_names), len(test.class_names)) == (6, 4)
    assert split_source(source, config, seed=1).test[0].class_names == test.class_names
    assert split_source(source, config, seed=2).test[0].class_names != test.class_names
    assert train.labels.max() == 5


def test_small_classes_are_set_aside_and_named(tmp_path: Path) -> None:
    write_meta_album(tmp_path / "A", [12] * 9 + [3])
    config = TaskConfig(query_images_per_class=5, max_k=4)
    split = split_source(read_source(tmp_path / "A"), config, seed=0)
    assert any("class 9" in line and "3 images" in line for line in split.set_aside)
    assert len(split.train[0].class_names) + len(split.test[0].class_names) == 9


def test_one_small_class_does_not_take_the_shots_of_all(tmp_path: Path) -> None:
    write_meta_album(tmp_path / "A", [15] * 9 + [6])
    config = TaskConfig(query_images_per_class=5, max_k=10)
    split = split_source(read_source(tmp_path / "A"), config, seed=0)
    smallest = min(len(rows) for part in (*split.train, *split.test) for rows in part.rows_of_class)
    assert smallest == 15


def test_no_usable_dataset_is_an_error_with_the_fix(tmp_path: Path) -> None:
    write_meta_album(tmp_path / "A", [3] * 5)
    with pytest.raises(InputError, match="--query-per-class"):
        split_source(read_source(tmp_path / "A"), TaskConfig(), seed=0)


def test_a_splits_file_is_followed_and_never_resplit(tmp_path: Path) -> None:
    for name in "AB":
        write_meta_album(tmp_path / name, [6] * 4)
    write_splits(tmp_path, {"meta-train": ["B"], "meta-test": ["A"]})
    config = TaskConfig(query_images_per_class=5)
    split = split_source(read_source(tmp_path), config, seed=0)
    assert (split.protocol, split.train[0].name, split.test[0].name) == ("cross-domain", "B", "A")
    assert len(split.test[0].class_names) == 4
    within = split_source(read_source(tmp_path), config, seed=0, protocol="within-domain")
    assert [part.name for part in within.test] == ["B", "A"]


def test_cross_domain_needs_two_datasets(tmp_path: Path) -> None:
    write_meta_album(tmp_path / "A", [8] * 6)
    config = TaskConfig(query_images_per_class=2)
    with pytest.raises(InputError, match="two datasets"):
        split_source(read_source(tmp_path), config, seed=0, protocol="cross-domain")
    write_meta_album(tmp_path / "B", [8] * 6)
    split = split_source(read_source(tmp_path), config, seed=0, protocol="cross-domain")
    assert {split.train[0].name, split.test[0].name} == {"A", "B"}


@pytest.mark.parametrize(("size", "queries"), [(40, 20), (20, 5), (60, 20), (3, 1)])
def test_queries_follow_the_class_size(size: int, queries: int) -> None:
    labels = np.repeat(np.arange(4), size)
    dataset = Dataset("D", tuple(Path(str(i)) for i in range(len(labels))), labels, tuple("abcd"))
    assert queries_for([dataset]) == queries


def test_two_runs_at_once_share_the_cache(tmp_path: Path) -> None:
    dataset = read_meta_album(write_meta_album(tmp_path / "D", [20, 20]))
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(decode_dataset, dataset, 32, tmp_path / "c") for _ in range(4)]
        arrays = [np.array(future.result().images) for future in futures]
    assert all(np.array_equal(arrays[0], other) for other in arrays[1:])
    assert sorted(p.suffix for p in (tmp_path / "c" / "images").iterdir()) == [".json", ".npy"]


def test_the_image_cache_is_written_where_files_can_not_be_reserved_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = read_class_folders(write_class_folders(tmp_path / "data", [3, 2]))
    expected = decode_dataset(dataset, 16, tmp_path / "linux").images
    monkeypatch.setattr("ingestion.images.sys.platform", "darwin")
    monkeypatch.delattr("os.posix_fallocate")
    np.testing.assert_array_equal(decode_dataset(dataset, 16, tmp_path / "mac").images, expected)
