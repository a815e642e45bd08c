"""The datasets of papers, decoded at the pixels that a recipe asks for: a pool, and the classes of three splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autometa.core.errors import DataError
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool, Rows
from autometa.data.mapped import CHUNK_ROWS, empty_images
from autometa.data.turned import repeat_classes, turn_images
from autometa.papers.layouts import LAYOUTS, DataKind
from ingestion import InputError
from ingestion.class_splits import read_class_split
from ingestion.images import decode_dataset, default_cache_dir
from ingestion.sources import summarise

MOST_IN_MEMORY_BYTES = 2**31
"""Of images that are made of others; more of them lie in a file."""
WHITE = 255


@dataclass(frozen=True)
class PaperData:
    """Images uint8 [n, 3, px, px] with labels, and the ids, ascending, of the classes to train, to validate and to
    test on."""

    pool: ImagePool
    train: Rows
    validation: Rows
    test: Rows

    def check_room(self, part: str, spec: EpisodeSpec) -> None:
        """DataError where the classes of a part, `train`, `validation` or `test`, have no episode of this form."""
        classes: Rows = getattr(self, part)
        needed = spec.shots[1] + spec.queries_per_class
        large = int((self.pool.class_sizes[classes] >= needed).sum())
        if large < spec.ways[1]:
            raise DataError(
                f"{part}: {large} of its {len(classes)} classes have {needed} images, and episodes take "
                f"{spec.ways[1]} classes with {spec.shots[1]} labelled images and {spec.queries_per_class} queries "
                "each; give the whole dataset, or another split"
            )


def load_data(
    kind: DataKind,
    folder: Path,
    px: int,
    *,
    split: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> PaperData:
    """A dataset at `px` pixels. Its classes are split as the file `split` says, by default as its folder or its
    papers have it. Decoded images are kept in the cache of a run. DataError or InputError, in one line, where the
    folder is not as the kind wants it, where there is no split, or where that names classes that there are not."""
    layout = LAYOUTS[kind]
    dataset, own = layout.read(folder)
    with _naming("--split"):
        chosen = own if split is None else read_class_split(split)
    if chosen is None:
        raise DataError(
            f"--data {folder}: nothing there says which classes are for what; name a file with --split"
        )
    if not chosen.validation:
        raise DataError(f"--split {split}: no classes to validate on; name some, as `meta-valid`")
    report(f"{dataset.name}: {len(dataset.files)} images, decoded at {px} px unless the cache has them")
    decoded = decode_dataset(dataset, px, default_cache_dir())
    for line in summarise(filter(None, (*decoded.broken, decoded.note))):
        report(line)
    names, labels = decoded.dataset.class_names, decoded.dataset.labels
    with _naming(f"--data {folder}" if split is None else f"--split {split}"):
        parts = chosen.ids_in(names, dataset.name)
    train, validation, test = (repeat_classes(part, layout.turns, len(names)) for part in parts)
    images = decoded.images
    if layout.inverted or layout.turns > 1:
        images = copy_turned(images, layout.turns, inverted=layout.inverted)
    labels, of_dataset = (
        repeat_classes(labels, layout.turns, len(names)),
        np.zeros(layout.turns * len(names), int),
    )
    return PaperData(ImagePool(images, labels, of_dataset, (dataset.name,)), train, validation, test)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Whatever InputError comes says where the split is from."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def copy_turned(images: NDArray[np.uint8], turns: int, *, inverted: bool) -> NDArray[np.uint8]:
    """Square images [n, 3, px, px] → [turns · n, 3, px, px]: all as they are, then all turned by 90°, and so on; dark
    for light if they are to be `inverted`."""
    n = len(images)
    shape = (turns * n, *images.shape[1:])
    made = empty_images(shape, in_file=turns * images.nbytes > MOST_IN_MEMORY_BYTES)
    for start in range(0, n, CHUNK_ROWS):
        part = images[start : start + CHUNK_ROWS]
        part = WHITE - part if inverted else part
        for turn in range(turns):
            made[turn * n + start : turn * n + start + len(part)] = turn_images(part, turn)
    return made
