"""Readers of what people write and unpack: any content is a value, or one line that says what to change."""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image
from synthetic import class_image, write_meta_album
from values import JSON_VALUES, MANY_DIGITS, as_json, assert_one_line, objects

from ingestion.bundle import read_config
from ingestion.drawn_tasks import read_drawn_tasks
from ingestion.errors import InputError
from ingestion.folders import is_hidden, printable
from ingestion.formats import UNUSABLE
from ingestion.pixels import decode_image
from ingestion.sources import read_source, summarise
from ingestion.tables import SEPARATORS, read_json, read_json_tolerantly, read_table

COLUMNS = ("FILE_NAME", "CATEGORY")


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder for one example."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def read(file: Path, data: bytes, reader: Callable[[], Any]) -> Any:
    """What a reader makes of a file with these bytes; None where it refuses them, which must be in one line that
    names the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    try:
        return reader()
    except InputError as error:
        assert_one_line(error)
        assert str(file.parent) in str(error)
        return None


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=8)
ROWS = st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6)


@given(st.binary(max_size=200), st.sampled_from([None, COLUMNS]))
@example(b"\xff\xfea", None)
@example(b"FILE_NAME,CATEGORY\nx.png,\x00\n", COLUMNS)
@example(b"a" * 200_000 + b",b\nc,d", COLUMNS)
@example(b"FILE_NAME,CATEGORY\n" + b"x" * 200_000 + b",b\n", COLUMNS)
def test_any_table_is_rows_or_one_line(data: bytes, columns: tuple[str, str] | None) -> None:
    with folder() as place:
        file = place / "labels.csv"
        table = read(file, data, lambda: read_table(file, columns))
        assert table is None or all(name and label for _, name, label in table.rows)


@given(ROWS, st.sampled_from([*SEPARATORS]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_a_table_keeps_its_cells(rows: list[tuple[str, str]], separator: str, encoding: str) -> None:
    rows = [(name.strip(), label.strip()) for name, label in rows]
    assume(all(name and label for name, label in rows))
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([COLUMNS, *rows])
    with folder() as place:
        file = place / "labels.csv"
        table = read(file, stream.getvalue().encode(encoding), lambda: read_table(file, COLUMNS))
    assert [(name, label) for _, name, label in table.rows] == rows


@given(st.binary(max_size=100) | JSON_VALUES.map(as_json))
@example(as_json(MANY_DIGITS))
@example(b"[" * 100_000)
@example(b"[" * 900 + b"1," + b"]" * 900)
def test_any_json_is_a_value_or_one_line(data: bytes) -> None:
    with folder() as place:
        file = place / "info.json"
        read(file, data, lambda: read_json(file))


@given(JSON_VALUES)
def test_json_is_read_as_it_was_written_and_with_a_comma_too_many(value: Any) -> None:
    def same(one: Any, other: Any) -> bool:
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(map(same, one, other))
        both_nan = (
            isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
        )
        return bool(one == other) or both_nan

    with folder() as place:
        (place / "a.json").write_text(json.dumps(value))
        (place / "b.json").write_text(json.dumps([value])[:-1] + " , ]")
        assert same(read_json_tolerantly(place / "a.json")[0], value)
        mended, notes = read_json_tolerantly(place / "b.json")
        assert same(mended, [value]) and len(notes) == 1


NAMES = st.sampled_from(["SET", "..", "", "/", "SET/../SET", "a\nb", "\0", "x" * 300, "\ud800", "."])


@pytest.mark.medium
@given(objects("meta-train", "meta-test", more=st.lists(NAMES, max_size=3) | JSON_VALUES) | JSON_VALUES)
@example({"meta-train": ["SET"], "meta-test": ["SET"]})
@example({"meta-train": ["\0"], "meta-test": ["SET"]})
@example({"meta-train": ["x" * 5000], "meta-test": ["SET"]})
@example({"meta-train": 7 * "very long ", "meta-test": [["x"] * 3000]})
def test_any_splits_file_is_datasets_or_one_line(splits: Any) -> None:
    with folder() as place:
        write_meta_album(place / "SET", [1, 1])
        file = place / "info" / "meta_splits.txt"
        source = read(file, as_json(splits), lambda: read_source(place))
        if source is not None:
            assert set(source.train_names) | set(source.test_names) == source.datasets.keys()


@pytest.mark.medium
@given(objects("image_column_name", "category_column_name") | JSON_VALUES)
@example({"image_column_name": "FILE_NAME", "category_column_name": "x" * 5000})
@example({"image_column_name": "a\nb", "category_column_name": "CATEGORY"})
def test_any_info_file_is_a_dataset_or_one_line(info: Any) -> None:
    with folder() as place:
        file = write_meta_album(place / "SET", [1, 1]) / "info.json"
        source = read(file, as_json(info), lambda: read_source(place))
        assert source is None or len(source.datasets["SET"].files) == 2


@given(
    objects(
        "train_data_format", "batch_size", "validation_datasets", "train_config", "valid_config",
        more=objects("N", "min_N", "k", "query_images_per_class") | JSON_VALUES,
    )
    | JSON_VALUES
)  # fmt: skip
@example({"train_config": {"N": 2, "k": 10**400}})
@example({"batch_size": 1e999})
@example({"x" * 5000: 1, "train_config": {"N": "x" * 5000}})
def test_any_configuration_is_settings_or_one_line(config: Any) -> None:
    with folder() as place:
        settings = read(place / "config.json", as_json(config), lambda: read_config(place))
        assert settings is None or settings.train_config.query_images_per_class <= 20


@given(objects("format", "protocol", "test_config", "datasets", "tasks") | JSON_VALUES)
@example({"protocol": "x" * 5000})
@example({"x" * 5000: 1})
def test_any_drawn_tasks_are_tasks_or_one_line(content: Any) -> None:
    with folder() as place:
        read(place / "tasks.json", as_json(content), lambda: read_drawn_tasks(place))


FILE_NAMES = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)


@pytest.mark.medium
@given(st.dictionaries(FILE_NAMES, st.lists(FILE_NAMES, min_size=1, max_size=3), min_size=2, max_size=4))
@example({"train": ["a"], "test": ["b"], "val": ["c"]})
@example({"a\nb": ["x"], "c\x1b[31m": ["y"]})
@example({"a\nb": [".x"], "c\x1b[31m": ["y"], "d": ["x"], "e": ["x"]})
def test_folders_of_any_names_are_read_whole(classes: dict[str, list[str]]) -> None:
    picture = io.BytesIO()
    class_image(0, 0, 8).save(picture, "PNG")
    with folder() as place:
        for label, names in classes.items():
            (place / label).mkdir(exist_ok=True)
            for name in names:
                (place / label / f"{name}.png").write_bytes(picture.getvalue())
        try:
            source = read_source(place)
        except InputError as error:
            assert_one_line(error)
            return
        (dataset,) = source.datasets.values()
        shown = {label: set(names) for label, names in classes.items() if not is_hidden(label)}
        assert set(dataset.class_names) <= {printable(label) for label in classes}
        for file in dataset.files:
            assert file.read_bytes() == picture.getvalue()
        found = [name for names in shown.values() for name in names if not name.startswith(".")]
        assert len(dataset.files) == len(found)
        for line in summarise(source.notes):
            assert_one_line(line)


KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX")


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    class_image(1, 1, 16).save(stream, kind)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore")
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3),
    st.integers(0, 200),
)
def test_a_damaged_image_is_pixels_or_an_error_of_images(
    kind: str, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(encoded(kind))
    for place, value in changes:
        data[place] = value
    data = data[: len(data) - cut]
    try:
        pixels = decode_image(bytes(data), 8)
    except UNUSABLE:
        return
    assert pixels.shape == (3, 8, 8) and Image.fromarray(pixels.transpose(1, 2, 0)).size == (8, 8)
