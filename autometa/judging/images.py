"""The images of a dataset, decoded once before the runs: the first is not slower than the others then."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ingestion.doubles import set_doubles_aside
from ingestion.image_size import choose_image_size
from ingestion.images import decode_dataset, default_cache_dir
from ingestion.preparation import Shape
from ingestion.sources import read_source
from ingestion.survey import choose_preparations


def fill_cache(
    folder: Path,
    image_size: int | Literal["auto"],
    image_shape: Shape | Literal["auto"] = "squeeze",
    *,
    task_images: int = 1,
    memory_bytes: int | None = None,
) -> None:
    """Decode the images of a dataset into the cache, as runs with these options need it. `task_images`: the most
    of a task, on which `auto` depends where memory has a budget. InputError for a dataset that cannot be used."""
    source = set_doubles_aside(read_source(folder))
    px = choose_image_size(source, task_images, memory_bytes) if image_size == "auto" else image_size
    source = choose_preparations(source, px, image_shape)
    for name, dataset in source.datasets.items():
        decode_dataset(dataset, source.preparation(name, px), default_cache_dir())
