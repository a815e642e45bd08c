"""What is decoded within a time budget, on a fake clock that moves when an image is decoded."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from synthetic import FakeClock

from ingestion import Event, IngestionSettings, decoding, images
from ingestion.datasets import Dataset, dataset_from_names
from ingestion.decoding import DECODING_SHARE, MOST_NAMED, SAMPLE, Decoded, Pace, decode_source
from ingestion.errors import InputError
from ingestion.images import Pixels
from ingestion.inputs import _draw
from ingestion.partial_dataset import FIRST_ROUND, SHARD, order_to_learn
from ingestion.preparation import Preparation
from ingestion.sources import Source
from ingestion.splits import Part

PX = 8
IMAGE_S = 0.05
MEASURED = SAMPLE + 1
"""The first one is decoded twice."""


class Album:
    """A dataset of files that hold their number, and what decodes them, slowly."""

    def __init__(self, folder: Path, clock: FakeClock, sizes: Sequence[int]) -> None:
        self.folder, self.clock, self.sizes = folder, clock, sizes
        self.decoded: list[int] = []
        self.broken: set[int] = set()
        self._lock = threading.Lock()
        folder.mkdir()
        for number in range(sum(sizes)):
            (folder / f"{number:05}").write_text(str(number))

    def dataset(self) -> Dataset:
        names = [f"class {c}" for c, size in enumerate(self.sizes) for _ in range(size)]
        return dataset_from_names("ALBUM", sorted(self.folder.iterdir()), names)

    def decode(self, data: bytes, preparation: Preparation) -> Pixels:
        number, px = int(data), preparation.px
        with self._lock:
            self.clock.now += IMAGE_S
            self.decoded.append(number)
        if number in self.broken:
            raise ValueError("broken")
        return np.full((3, px, px), number % 251, dtype=np.uint8)


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Album:
    made = Album(tmp_path / "ALBUM", FakeClock(), [40] * 30)
    for module in (decoding, images):
        monkeypatch.setattr(module, "decode_image", made.decode)
    return made


class Decodes:
    """Runs the decoding with a cache of its own; `notes` are those of the last run."""

    def __init__(self, album: Album, tmp_path: Path) -> None:
        self.album, self.tmp_path = album, tmp_path
        self.notes: list[str] = []
        self.runs = 0

    def __call__(self, budget_s: float | None) -> Decoded:
        self.runs += 1
        self.notes.clear()
        self.album.decoded.clear()
        scratch = self.tmp_path / f"scratch {self.runs}"
        scratch.mkdir()
        settings = IngestionSettings(
            input_data_dir=self.album.folder,
            submission=self.tmp_path,
            output_dir=self.tmp_path,
            image_size=PX,
            test_tasks_per_dataset=6,
            ways=(2, 5),
            shots=(1, 3),
            query_images_per_class=5,
            time_budget_s=budget_s,
            cache_dir=self.tmp_path / "cache",
            started=self.album.clock.now,
        )
        source = Source({"ALBUM": self.album.dataset()})
        return decode_source(
            source, settings, lambda s: _draw(settings, s), scratch, self.listen, self.album.clock
        )

    def listen(self, event: Event) -> None:
        if event.kind == "note":
            self.notes.append(event.text)


@pytest.fixture
def decodes(album: Album, tmp_path: Path) -> Decodes:
    return Decodes(album, tmp_path)


def check_images(result: Decoded, album: Album) -> None:
    """Every image that a part for meta-training or a task names is that of its file."""
    found = result.images["ALBUM"]
    (train,), (test,) = result.split.train, result.split.test
    asked = [test.rows[np.concatenate([d.support_rows, d.query_rows])] for d in result.draws]
    for rows in (train.rows, np.concatenate(asked)):
        numbers = [int(found.dataset.files[row].name) for row in rows]
        assert (np.asarray(found.images[rows])[:, 0, 0, 0] == [n % 251 for n in numbers]).all()
        assert album.broken.isdisjoint(numbers)


def test_the_pace_predicts_what_decoding_takes(album: Album) -> None:
    pace = decoding.measure_pace(dict.fromkeys(album.dataset().files, Preparation(PX)), album.clock)
    assert pace == Pace(0.0, pytest.approx(IMAGE_S))  # type: ignore[arg-type]
    assert Pace(0.01, 0.05).decoding_s(1000) == pytest.approx(70) and Pace(0.01, 0.05).key_s(1000) == 10
    assert len(album.decoded) == MEASURED and max(np.diff(sorted(album.decoded))) < 40


@pytest.mark.medium
def test_all_images_are_decoded_where_there_is_time_or_no_budget(decodes: Decodes, album: Album) -> None:
    result = decodes(1000.0)
    assert sum(len(part.rows) for part in (*result.split.train, *result.split.test)) == 1200
    assert decodes.notes[0] == "1,200 images take about 60 s to decode, less if the cache has them"
    assert decodes.notes[1].startswith("ALBUM: 1,200 images are one flat colour, look at them: 00000, 00001")
    assert result.seconds == pytest.approx(IMAGE_S * (1200 + MEASURED))
    check_images(result, album)
    decodes(None)
    assert not album.decoded and len(decodes.notes) == 1


@pytest.mark.medium
def test_what_is_decoded_within_a_budget_is_what_it_can_use(decodes: Decodes, album: Album) -> None:
    result = decodes(100.0)
    (train,), (test,) = result.split.train, result.split.test
    asked = {row for d in result.draws for row in (*d.support_rows, *d.query_rows)}
    assert len(test.rows) == 12 * 40, "tasks are drawn from all that is listed"
    tasks_s = IMAGE_S * len(asked)
    left_s = 100.0 - IMAGE_S * MEASURED - tasks_s
    learning_s = result.seconds - IMAGE_S * MEASURED - tasks_s
    assert 0.5 * DECODING_SHARE * left_s < learning_s <= DECODING_SHARE * left_s
    assert len(train.rows) == SHARD and len(train.class_names) == 18, "most of each of all classes"
    assert min(map(len, train.rows_of_class)) >= FIRST_ROUND
    check_images(result, album)
    before, reason, _ = decodes.notes[1:]
    assert before.startswith("that is more than the 20 s that the time budget has for it")
    assert reason.startswith(f"images to learn from: {SHARD} of 720 decoded in 13 s")
    whole = decodes(None)
    for ours, theirs in zip(result.draws, whole.draws, strict=True):
        np.testing.assert_array_equal(ours.support_rows, theirs.support_rows)
        np.testing.assert_array_equal(ours.query_rows, theirs.query_rows)


@pytest.mark.medium
def test_a_later_run_goes_on_from_what_the_cache_has(decodes: Decodes, album: Album) -> None:
    learned = []
    for _ in range(4):
        result = decodes(100.0)
        learned.append(len(result.split.train[0].rows))
        check_images(result, album)
    assert learned == [SHARD, 2 * SHARD, 720, 720]
    assert len(album.decoded) == MEASURED


@pytest.mark.medium
def test_what_the_cache_has_in_whole_is_used_in_whole(decodes: Decodes, album: Album) -> None:
    decodes(None)
    result = decodes(50.0)
    assert sum(len(part.rows) for part in (*result.split.train, *result.split.test)) == 1200
    assert len(album.decoded) == MEASURED
    check_images(result, album)


def test_where_even_looking_images_up_takes_too_long_few_are_looked_up(
    decodes: Decodes, album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    decodes(None)
    monkeypatch.setattr(decoding, "measure_pace", lambda *_: Pace(0.02, 0.05))
    monkeypatch.setattr(decoding, "is_decoded", lambda *_: pytest.fail("looked all images up"))
    assert len(decodes(100.0).split.train[0].rows) < 720


@pytest.mark.medium
def test_nothing_is_looked_up_in_a_cache_that_has_only_parts(
    decodes: Decodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decodes(100.0)
    looked_up: list[int] = []
    key = images._content_key
    monkeypatch.setattr(images, "_content_key", lambda d, px: looked_up.append(len(d.files)) or key(d, px))  # type: ignore[func-returns-value]
    decodes(100.0)
    assert max(looked_up) <= SHARD


@pytest.mark.medium
def test_broken_images_are_in_no_task_and_named(decodes: Decodes, album: Album) -> None:
    album.broken = set(range(0, 1200, 7))
    result = decodes(100.0)
    check_images(result, album)
    found = result.images["ALBUM"]
    assert len(found.dataset.files) == len(found.images) < 1200
    assert len(found.broken) > MOST_NAMED and all("broken" in line for line in found.broken)
    assert [n for n in decodes.notes if n.startswith("set aside")] == [
        *(f"set aside: {b}" for b in found.broken[:MOST_NAMED]),
        f"set aside: {len(found.broken) - MOST_NAMED} more images of ALBUM, all named in the record of the run",
    ]
    assert decodes.notes[-1].startswith(f"ALBUM: {len(found.flat):,} images are one flat colour")


@pytest.mark.medium
def test_images_that_are_all_broken_are_an_error(decodes: Decodes, album: Album) -> None:
    album.broken = set(range(1200))
    with pytest.raises(InputError, match="broken"):
        decodes(100.0)
    assert len(album.decoded) <= 1200 + MEASURED, "each is tried once"


def test_any_beginning_of_the_order_has_a_share_of_each_of_its_classes() -> None:
    sizes = [50, 12, 7, 33, 100]
    labels = np.repeat(np.arange(5), sizes)
    files = tuple(Path(str(row)) for row in range(len(labels)))
    part = Part(Dataset("D", files, labels, tuple("abcde")), np.arange(len(labels)))
    order = order_to_learn(part)
    assert sorted(order) == list(range(sum(sizes)))
    assert np.array_equal(order, order_to_learn(part))
    for end in range(1, len(order)):
        counts = np.bincount(labels[order[:end]], minlength=5)
        share = FIRST_ROUND if counts.max() <= FIRST_ROUND else counts.max() / 2
        latest = labels[order[end - 1]]
        assert all(counts[c] >= min(sizes[c], share) for c in np.flatnonzero(counts) if c != latest), end
