"""Which images of a run are decoded: all where the time budget allows it, else those that it can use.

Images come from a cache of earlier runs, or they are decoded, which counts against the time budget. A few are
measured first. Where all would take more than a share of the time left, those of the drawn test tasks are decoded,
then images to learn from, as long as the share lasts, in an order of which any beginning is usable. Splits and tasks
are drawn from what is listed, so they do not depend on the time. What is decoded goes into the cache part by part: a
later run finds it and goes on from there.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ingestion.cgroups import count_cores
from ingestion.datasets import Dataset
from ingestion.folders import counted, shortlist
from ingestion.formats import UNUSABLE, quiet_decoders
from ingestion.images import DecodedDataset, decode_dataset, default_cache_dir, is_decoded
from ingestion.partial_dataset import SHARD, PartialDataset, order_to_learn, restrict
from ingestion.pixels import decode_image
from ingestion.preparation import Preparation
from ingestion.settings import Event, IngestionSettings, OnEvent
from ingestion.sources import Source
from ingestion.splits import Split
from ingestion.tasks import Rows, TaskDraw

DECODING_SHARE = 0.2
"""Share of the time left that decoding may take; those of the test tasks may take more."""
MOST_DRAWS = 3
"""Draws of tasks that are made without knowing which other images are broken."""
FEW_IMAGES = 512
"""So few images are decoded without further ado."""
SAMPLE = 48
"""Images that are measured."""
MOST_NAMED = 8
"""Images of a dataset that are named while it is decoded, of those that cannot be read."""

Clock = Callable[[], float]
DrawTasks = Callable[[Source], tuple[Split, list[TaskDraw]]]
"""The split of datasets and the test tasks."""


@dataclass(frozen=True)
class Pace:
    """Seconds that one image takes, all cores at work: to be read, and then to be decoded."""

    read_s: float
    decode_s: float

    def key_s(self, images: int) -> float:
        """Seconds to look so many images up in the cache, which is done by content."""
        return images * self.read_s

    def decoding_s(self, images: int) -> float:
        """Seconds to look so many images up and to decode them."""
        return images * (2 * self.read_s + self.decode_s)


@dataclass(frozen=True)
class Decoded:
    """What a run works with. `images` has the same rows as the datasets; those that no part and no task names may be
    empty. `seconds`: what reading and decoding took."""

    split: Split
    draws: list[TaskDraw]
    images: dict[str, DecodedDataset]
    seconds: float


def decode_source(
    source: Source,
    settings: IngestionSettings,
    draw: DrawTasks,
    scratch: Path,
    on_event: OnEvent,
    clock: Clock = time.monotonic,
) -> Decoded:
    """Decode the images that this run can use; split and draw tasks. `scratch`: a folder that outlives the run's use
    of the images. InputError if a dataset has no image that can be read or the cache cannot be written."""
    began = clock()
    work = _Decoding(settings, on_event, clock, scratch)
    rest = work.decode_whole(source)
    if not rest:
        source = replace(source, datasets={n: work.whole[n].dataset for n in source.datasets})
        split, draws = draw(source)
        return Decoded(split, draws, work.whole, clock() - began)
    split, draws, partial = work.decode_for_tasks(source, rest, draw)
    split = work.decode_to_learn(split, partial)
    images = {
        name: partial[name].assemble() if name in partial else work.whole[name] for name in source.datasets
    }
    for name in rest:
        work.set_aside(images[name])
    return Decoded(split, draws, images, clock() - began)


@dataclass
class _Decoding:
    """One run's decoding. `whole`: the datasets of which all images are decoded; `image_s`: seconds that an image
    takes, as measured."""

    settings: IngestionSettings
    on_event: OnEvent
    clock: Clock
    scratch: Path

    def __post_init__(self) -> None:
        assert self.settings.image_size != "auto", "the size is chosen before images are decoded"
        self.px = self.settings.image_size
        self.cache_dir = self.settings.cache_dir or default_cache_dir()
        self.whole: dict[str, DecodedDataset] = {}
        self.image_s = float("inf")

    def decode_whole(self, source: Source) -> list[str]:
        """Decode all datasets if there is time, else map those that the cache holds; returns the names of the
        others."""
        datasets = source.datasets
        rest = list(datasets)
        prepared = {name: source.preparation(name, self.px) for name in datasets}
        images = _count(datasets, rest)
        if self._left_s() is not None and images > FEW_IMAGES:
            files = {file: prepared[name] for name, dataset in datasets.items() for file in dataset.files}
            pace = measure_pace(files, self.clock)
            whole_s, allowed_s, self.image_s = pace.decoding_s(images), self._allowed_s(), pace.decoding_s(1)
            self._note(f"{images:,} images take about {whole_s:.0f} s to decode, less if the cache has them")
            if whole_s > allowed_s and 2 * pace.key_s(images) <= allowed_s:
                rest = [n for n, d in datasets.items() if not is_decoded(d, prepared[n], self.cache_dir)]
            if rest and pace.decoding_s(_count(datasets, rest)) > allowed_s:
                self._note(
                    f"that is more than the {allowed_s:.0f} s that the time budget has for it: those of the test "
                    "tasks are decoded, then a share of each class to learn from"
                )
                self._map([name for name in datasets if name not in rest], source)
                return rest
        self._map(list(datasets), source)
        return []

    def _map(self, names: Sequence[str], source: Source) -> None:
        for name in names:
            dataset = source.datasets[name]
            self.on_event(Event("stage", f"images of {name}", total=len(dataset.files)))
            preparation = source.preparation(name, self.px)
            self.whole[name] = decode_dataset(dataset, preparation, self.cache_dir, self._show_progress)
            if self.whole[name].note:
                self._note(self.whole[name].note)
            self.set_aside(self.whole[name])

    def decode_for_tasks(
        self, source: Source, rest: Sequence[str], draw: DrawTasks
    ) -> tuple[Split, list[TaskDraw], dict[str, PartialDataset]]:
        """Split, tasks and their images; drawn anew without those that turn out to be broken."""
        datasets = source.datasets
        partial = {
            name: PartialDataset(
                datasets[name],
                source.preparation(name, self.px),
                self.cache_dir,
                self.scratch / f"images-{number}",
            )
            for number, name in enumerate(rest)
        }
        for number in itertools.count():
            present = {n: (partial.get(n) or self.whole[n]).dataset for n in datasets}
            split, draws = draw(replace(source, datasets=present))
            for name, asked in _rows_of_tasks(split, draws).items():
                if name in partial:
                    rows = asked if number < MOST_DRAWS else np.arange(len(present[name].files))
                    self.on_event(Event("stage", f"images of {name} for the test tasks", total=len(rows)))
                    began = self.clock()
                    for done in partial[name].decode(rows):
                        self._show_progress(done, len(rows))
                    self.image_s = min(self.image_s, (self.clock() - began) / len(rows))
            removed = [each.remove_broken() for each in partial.values()]
            if not any(removed):
                break
        return split, draws, partial

    def decode_to_learn(self, split: Split, partial: Mapping[str, PartialDataset]) -> Split:
        """The split with those images to learn from that there is time to decode, but some of each dataset."""
        parts = [part for part in split.train if part.name in partial]
        orders = [part.rows[order_to_learn(part)] for part in parts]
        total = sum(map(len, orders))
        self.on_event(Event("stage", "images to learn from", total=total))
        began, allowed_s, done = self.clock(), self._allowed_s(), 0
        image_s = self.image_s
        for start in range(0, max(map(len, orders), default=0), SHARD):
            for part, order in zip(parts, orders, strict=True):
                rows = order[start : start + SHARD]
                before = self.clock()
                if not len(rows) or (start and before - began + len(rows) * image_s > allowed_s):
                    continue
                list(partial[part.name].decode(rows))
                done += len(rows)
                image_s = max(image_s, (self.clock() - before) / len(rows))
                self._show_progress(done, total)
        if done < total:
            self._note(
                f"images to learn from: {done:,} of {total:,} decoded in {self.clock() - began:.0f} s, until their "
                "share of the time budget was used up; a later run finds these in the cache"
            )
        used = {part.name: restrict(part, partial[part.name]) for part in parts}
        return replace(split, train=tuple(used.get(part.name, part) for part in split.train))

    def _left_s(self) -> float | None:
        budget = self.settings.time_budget_s
        return None if budget is None else self.settings.started + budget - self.clock()

    def _allowed_s(self) -> float:
        left_s = self._left_s()
        return float("inf") if left_s is None else DECODING_SHARE * max(left_s, 0.0)

    def _note(self, text: str) -> None:
        self.on_event(Event("note", text))

    def set_aside(self, decoded: DecodedDataset) -> None:
        """Name the images that cannot be read, and those that show nothing."""
        name, broken = decoded.dataset.name, decoded.broken
        for line in broken[:MOST_NAMED]:
            self._note(f"set aside: {line}")
        if len(broken) > MOST_NAMED:
            more = counted(len(broken) - MOST_NAMED, "more image")
            self._note(f"set aside: {more} of {name}, all named in the record of the run")
        if decoded.flat:
            number = counted(len(decoded.flat), "image is", "images are")
            self._note(
                f"{name}: {number} one flat colour, look at them: {shortlist(f.name for f in decoded.flat)}"
            )

    def _show_progress(self, done: int, total: int) -> None:
        self.on_event(Event("progress", done=done, total=total))


def measure_pace(prepared: Mapping[Path, Preparation], clock: Clock = time.monotonic) -> Pace:
    """The pace of a few of these files, evenly spread over all; those that are broken count as they are."""
    files = list(prepared)
    sample = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, SAMPLE).astype(int))]

    def read(file: Path) -> bytes:
        with contextlib.suppress(OSError):
            return file.read_bytes()
        return b""

    def decode(data: bytes, file: Path) -> None:
        with contextlib.suppress(*UNUSABLE):
            decode_image(data, prepared[file])

    with quiet_decoders(), ThreadPoolExecutor(count_cores()) as pool:
        decode(read(sample[0]), sample[0])  # what the first image takes longer is not the pace
        began = clock()
        contents = list(pool.map(read, sample))
        read_s = clock() - began
        list(pool.map(decode, contents, sample))
        decode_s = clock() - began - read_s
    return Pace(read_s / len(sample), decode_s / len(sample))


def _rows_of_tasks(split: Split, draws: Sequence[TaskDraw]) -> dict[str, Rows]:
    """Rows of each dataset that the test tasks need, ascending."""
    rows: dict[str, list[Rows]] = {}
    for draw in draws:
        part = split.test[draw.dataset]
        rows.setdefault(part.name, []).extend([part.rows[draw.support_rows], part.rows[draw.query_rows]])
    return {name: np.unique(np.concatenate(some)) for name, some in rows.items()}


def _count(datasets: Mapping[str, Dataset], names: Sequence[str]) -> int:
    return sum(len(datasets[name].files) for name in names)
