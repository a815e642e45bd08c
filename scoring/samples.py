"""Pictures for the report: `samples.json`, the hardest classes, and a few episodes with what was answered."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scoring.calibration import SUM_TOLERANCE
from scoring.files import read_optional
from scoring.predictions import Prediction, read_prediction
from scoring.summary import TaskScore
from scoring.truth import Truth, TruthTask

if TYPE_CHECKING:
    from scoring.samples_file import SampleEpisode, Samples

SAMPLES_FILE = "samples.json"
CLASSES_SHOWN, CONFUSIONS_SHOWN = 12, 3
LEAST_QUERIES = 5
"""Of a class with fewer nothing is said."""
_MAX_BYTES = 2 * 2**20
_QUANTILE = 1.96


@dataclass(frozen=True)
class Confusion:
    """Another class that was answered instead, how often, and a picture of it (base64 of a JPEG file, or empty)."""

    name: str
    count: int
    picture: str


@dataclass(frozen=True)
class HardClass:
    """A class of the test: `hits` of its `queries`, over all tasks, were answered correctly; `low` and `high` are the
    ends of the 95 % Wilson interval of that share."""

    dataset: str
    name: str
    pictures: tuple[str, ...]
    queries: int
    hits: int
    confusions: tuple[Confusion, ...]

    @property
    def accuracy(self) -> float:
        """Share of the queries that were answered correctly."""
        return self.hits / self.queries

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson interval (Wilson, "Probable inference", JASA 1927), as if queries were independent."""
        n, p, z2 = self.queries, self.accuracy, _QUANTILE**2
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _QUANTILE * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2)) / (1 + z2 / n)
        return max(centre - half, 0.0), min(centre + half, 1.0)


@dataclass(frozen=True)
class Answer:
    """A query: its picture, its class, the class that was answered (None: no answer) and whether it is the right one,
    and its probability (None: the submission gave none)."""

    picture: str
    truth: str
    predicted: str | None
    probability: float | None
    is_right: bool


@dataclass(frozen=True)
class Episode:
    """A task to look at: `support` has a name and pictures for each class; some of the queries with the answers."""

    task: int
    dataset: str
    ways: int
    shots: int
    support: tuple[tuple[str, tuple[str, ...]], ...]
    answers: tuple[Answer, ...]


def read_samples(results_dir: Path) -> tuple[Samples | None, list[str]]:
    """Return the samples, None if the file is missing or unusable, and notes that say what was ignored."""

    def parse(data: bytes) -> Samples:
        from scoring.samples_file import parse_samples  # noqa: PLC0415  (pydantic is slow to import)

        return parse_samples(data)

    return read_optional(results_dir / SAMPLES_FILE, _MAX_BYTES, parse)


def find_hardest(samples: Samples, truth: Truth, tasks: Sequence[TaskScore]) -> tuple[HardClass, ...]:
    """The classes that were answered worst, over all tasks that were answered, the worst first."""
    seen: Counter[int] = Counter()
    answered: dict[int, Counter[int]] = defaultdict(Counter)
    for asked, scored in zip(truth.tasks, tasks, strict=True):
        places = _classes_of(samples, asked)
        if scored.predicted is None or places is None:
            continue
        pairs = np.stack([asked.labels, scored.predicted])
        for (label, other), count in zip(*_count_columns(pairs), strict=True):
            seen[places[label]] += int(count)
            answered[places[label]][places[other]] += int(count)
    wrong = [place for place, n in seen.items() if n >= LEAST_QUERIES and answered[place][place] < n]
    wrong.sort(key=lambda place: (answered[place][place] / seen[place], -seen[place], place))
    return tuple(_describe(samples, place, seen[place], answered[place]) for place in wrong[:CLASSES_SHOWN])


def show_episodes(samples: Samples, truth: Truth, results_dir: Path) -> tuple[Episode, ...]:
    """The episodes of the samples with the answers of the submission."""
    by_number = {task.task: task for task in truth.tasks}
    found = []
    for episode in samples.episodes:
        task = by_number.get(episode.task)
        places = None if task is None else _classes_of(samples, task)
        if task is None or places is None or len(episode.support) != task.ways:
            continue
        path = results_dir / f"task_{task.task}.predict"
        prediction = read_prediction(path, len(task.labels), task.ways)
        names = [samples.classes[place].name for place in places]
        found.append(_show(episode, task, names, prediction))
    return tuple(found)


def _show(episode: SampleEpisode, task: TruthTask, names: list[str], prediction: Prediction) -> Episode:
    answers = tuple(
        Answer(
            query.picture,
            names[task.labels[query.position]],
            None if prediction.labels is None else names[prediction.labels[query.position]],
            _probability(prediction, query.position),
            prediction.labels is not None
            and bool(prediction.labels[query.position] == task.labels[query.position]),
        )
        for query in episode.queries
        if query.position < len(task.labels)
    )
    support = tuple(zip(names, episode.support, strict=True))
    return Episode(task.task, task.dataset, task.ways, task.shots, support, answers)


def _probability(prediction: Prediction, row: int) -> float | None:
    if prediction.scores is None:
        return None
    scores = prediction.scores[row]
    is_probability = (scores >= 0).all() and abs(float(scores.sum()) - 1) <= SUM_TOLERANCE
    return min(float(scores.max()), 1.0) if is_probability else None


def _classes_of(samples: Samples, task: TruthTask) -> tuple[int, ...] | None:
    """The places of the classes of a task in the samples; None where these do not know the task."""
    places = samples.tasks[task.task - 1] if task.task <= len(samples.tasks) else ()
    return places if len(places) == task.ways else None


def _count_columns(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    columns, counts = np.unique(pairs, axis=1, return_counts=True)
    return columns.T, counts


def _describe(samples: Samples, place: int, queries: int, answered: Counter[int]) -> HardClass:
    own = samples.classes[place]
    others = [(other, count) for other, count in answered.most_common() if other != place]
    confusions = tuple(
        Confusion(samples.classes[other].name, count, next(iter(samples.classes[other].pictures), ""))
        for other, count in others[:CONFUSIONS_SHOWN]
    )
    return HardClass(own.dataset, own.name, own.pictures, queries, answered[place], confusions)
