"""Small pictures of test classes and of a few episodes, so that scoring can show what was asked.

They are labelled data of the test: `samples.json` is written only after the last process of the submission has ended.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ingestion.loose_images import encode_thumbnail
from ingestion.outputs import write_atomically
from ingestion.prepare import Prepared
from ingestion.settings import Event, OnEvent
from ingestion.splits import Part
from ingestion.tasks import TaskDraw

SAMPLES_FILE = "samples.json"
FORMAT = "autometa-samples-1"
THUMBNAIL_PX = 56
CLASS_CHARACTERS, EPISODE_CHARACTERS = 750_000, 350_000
"""Of base64 for pictures of classes, and of episodes."""
PICTURES_PER_CLASS, FEW_CLASSES = 2, 60
"""With more classes than this, each has one picture."""
MOST_TASKS = 5000
"""Tasks whose classes are named."""
EPISODES, WAYS = 3, 5
"""Episodes to show, of different datasets where there are some; their ways are as close to this as can be."""
SUPPORTS_SHOWN, QUERIES_SHOWN = 5, 24
LONGEST_NAME = 100

Picture = Callable[[int], str]
"""Row of a part → base64 of a JPEG file."""


def write_samples(folder: Path, prepared: Prepared, on_event: OnEvent) -> None:
    """Write `samples.json`; a note says where that fails, since results do not need it."""
    try:
        write_atomically(folder / SAMPLES_FILE, json.dumps(draw_samples(prepared)))
    except OSError as error:
        on_event(Event("note", f"the report has no pictures: {SAMPLES_FILE} ({error.strerror})"))


def draw_samples(prepared: Prepared) -> dict[str, Any]:
    """What `samples.json` holds: the `classes` that tasks have, each with its dataset, name and pictures; for each of
    the `tasks`, in order, which of these its labels 0, 1, … stand for; and `episodes`."""
    parts, draws = prepared.split.test, prepared.draws
    rows = _rows_of_classes(draws)
    places = {key: place for place, key in enumerate(rows)}
    per_class = PICTURES_PER_CLASS if len(rows) <= FEW_CLASSES else 1
    classes: list[dict[str, Any]] = [
        {"dataset": parts[d].name, "name": parts[d].class_names[c][:LONGEST_NAME], "pictures": []}
        for d, c in rows
    ]
    left = CLASS_CHARACTERS
    for key in _in_turn(rows):
        for row in rows[key][:per_class]:
            picture = _picture_of(prepared, parts[key[0]])(row)
            if (left := left - len(picture)) > 0:
                classes[places[key]]["pictures"].append(picture)
    return {
        "format": FORMAT,
        "classes": classes,
        "tasks": [[places[draw.dataset, c] for c in draw.classes.tolist()] for draw in draws[:MOST_TASKS]],
        "episodes": _episodes(prepared),
    }


def _rows_of_classes(draws: Sequence[TaskDraw]) -> dict[tuple[int, int], list[int]]:
    """Support rows by dataset and class; other images of a class may not have been decoded."""
    rows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for draw in draws[:MOST_TASKS]:
        for label, c in enumerate(draw.classes.tolist()):
            own = rows[draw.dataset, c]
            own += [row for row in draw.support_rows[draw.support_labels == label].tolist() if row not in own]
            del own[PICTURES_PER_CLASS:]
    return dict(sorted(rows.items()))


def _in_turn(keys: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The first class of each dataset, then the second one, and so on: pictures may not be enough for all."""
    of_dataset: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for key in keys:
        of_dataset[key[0]].append(key)
    ranked = [(place, key) for own in of_dataset.values() for place, key in enumerate(own)]
    return [key for _, key in sorted(ranked)]


def _picture_of(prepared: Prepared, part: Part) -> Picture:
    images = prepared.images[part.name].images
    return lambda row: base64.b64encode(encode_thumbnail(images[part.rows[row]], THUMBNAIL_PX)).decode()


def _episodes(prepared: Prepared) -> list[dict[str, Any]]:
    """A few tasks with pictures of their support and queries, as far as there is room."""
    episodes: list[dict[str, Any]] = []
    left = EPISODE_CHARACTERS
    for number in _choose_tasks(prepared.draws):
        draw = prepared.draws[number - 1]
        episode = _episode(number, draw, _picture_of(prepared, prepared.split.test[draw.dataset]))
        if (left := left - len(json.dumps(episode))) > 0:
            episodes.append(episode)
    return episodes


def _choose_tasks(draws: Sequence[TaskDraw]) -> list[int]:
    """Numbers of tasks of different datasets, spread over all; of the same one, where there are too few."""
    numbers = range(1, min(len(draws), MOST_TASKS) + 1)
    handy = sorted(numbers, key=lambda number: (abs(draws[number - 1].ways - WAYS), number))
    datasets = sorted({draws[number - 1].dataset for number in numbers})
    spread = [
        datasets[place]
        for place in np.linspace(0, len(datasets) - 1, min(EPISODES, len(datasets))).astype(int)
    ]
    chosen = [next(n for n in handy if draws[n - 1].dataset == dataset) for dataset in spread]
    chosen += [n for n in handy if n not in chosen][: EPISODES - len(chosen)]
    return sorted(chosen)


def _episode(number: int, draw: TaskDraw, picture: Picture) -> dict[str, Any]:
    support = [
        [picture(row) for row in draw.support_rows[draw.support_labels == label][:SUPPORTS_SHOWN].tolist()]
        for label in range(draw.ways)
    ]
    of_label = [np.flatnonzero(draw.query_labels == label) for label in range(draw.ways)]
    each = max(QUERIES_SHOWN // draw.ways, 1)
    positions = sorted(int(p) for own in of_label for p in own[:each])[:QUERIES_SHOWN]
    queries = [{"position": p, "picture": picture(int(draw.query_rows[p]))} for p in positions]
    return {"task": number, "support": support, "queries": queries}
