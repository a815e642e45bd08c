"""The size at which images are prepared, where it is not given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ingestion_runs import Runner
from PIL import Image
from synthetic import MakeBundle

from ingestion.image_size import choose_image_size, shorter_sides
from ingestion.sources import Source, read_source

FEW = 100


def folder_of(path: Path, *sizes: tuple[int, int], classes: int = 3) -> Path:
    """A folder with a subfolder for each class, which has an image of each of these sizes."""
    for number in range(classes):
        (path / f"class {number}").mkdir(parents=True)
        for place, size in enumerate(sizes):
            Image.new("RGB", size, (40 * number, 9 * place, 80)).save(
                path / f"class {number}" / f"{place}.png"
            )
    return path


def source_of(path: Path, *sizes: tuple[int, int]) -> Source:
    return read_source(folder_of(path, *sizes))


@pytest.mark.parametrize(
    ("size", "px"),
    [
        ((320, 320), 256),
        ((1000, 200), 192),
        ((230, 4000), 224),
        ((128, 128), 128),
        ((140, 140), 128),
        ((40, 60), 128),
    ],
)
def test_images_keep_the_size_that_they_have_within_bounds(
    tmp_path: Path, size: tuple[int, int], px: int
) -> None:
    assert choose_image_size(source_of(tmp_path / "set", size), FEW, None) == px


def test_the_median_image_counts(tmp_path: Path) -> None:
    source = source_of(tmp_path / "set", (20, 20), (200, 200), (900, 900))
    assert choose_image_size(source, FEW, None) == 192


def test_a_small_memory_budget_makes_images_smaller(tmp_path: Path) -> None:
    source = source_of(tmp_path / "set", (400, 400))
    task = 20 * 20
    sizes = [choose_image_size(source, task, gigabytes * 10**9) for gigabytes in (1, 2, 4)]
    assert sizes == [128, 160, 256]


def test_a_metadl_root_stays_at_the_size_of_the_format(tmp_path: Path) -> None:
    source = source_of(tmp_path / "set", (320, 320))
    declared = Source(source.datasets, ("set",), ("set",))
    assert choose_image_size(declared, FEW, None) == 128


def test_images_that_cannot_be_read_do_not_count(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", (320, 320))
    broken = folder / "class 0" / "broken.png"
    broken.write_bytes(b"no image")
    assert shorter_sides([broken]) == []
    assert choose_image_size(read_source(folder), FEW, None) == 256
    assert shorter_sides([]) == []


@pytest.mark.medium
def test_a_run_tells_and_records_the_size(tmp_path: Path, make_bundle: MakeBundle) -> None:
    data = folder_of(tmp_path / "set", *[(200, 200)] * 8, classes=8)
    runner = Runner(data, tmp_path / "out")
    fit = """
        assert support_set[0].shape[2:] == (192, 192), support_set[0].shape
        assert '"px": 192' in os.environ["METADL_TEST_SPEC"]
        return MyPredictor(support_set)
    """
    result = runner(make_bundle(fit=fit), image_size="auto", test_tasks_per_dataset=1)
    assert not result.failures
    assert "images are prepared at 192 px" in runner.texts("note")
    assert json.loads((runner.output / "ingestion.json").read_text())["image_size"] == 192
