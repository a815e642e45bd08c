"""How fast and how good the heads are: ratios to easyfsl and scikit-learn, measured in one run.

    python benchmarks/heads.py [--quick] [--json FILE] [--data DIR]

DIR holds datasets in Meta-Album layout; without it the features are synthetic, and only speeds are meaningful.
The comparison with easyfsl needs `pip install easyfsl --no-deps`.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _head_data import Cached, Report, embedded, made_up, seconds
from _head_modes import time_fitting, time_six_modes
from _head_rivals import compare_easyfsl

from autometa.data.episodes import Episode
from autometa.evaluation.accuracy import interval95
from autometa.evaluation.validation_episodes import ValidationEpisodes
from autometa.heads import HEADS, METRICS, FeatureBatch, MetricSpec, apply_head
from autometa.heads.logistic import logistic_regression

WHITENED = MetricSpec("root", shrinkage=0.1)
PUBLISHED = {
    "SCRIPTS": (87.5, 1.7),
    "EMOJI": (86.8, 1.5),
    "ICONS": (74.6, 2.1),
    "CLIPART": (44.2, 2.3),
    "UNITS": (88.3, 1.6),
    "TUXPHOTO": (50.6, 2.1),
    "FLAGS": (86.8, 1.4),
}
"""Accuracy and interval by the same protocol, with another split of classes, measured before this code existed."""


def balanced_episodes(
    data: Cached, n: int, shots: int, queries: int, seed: int = 0
) -> Iterator[tuple[FeatureBatch, torch.Tensor]]:
    """`n` 5-way episodes in batches of 100, with query labels [b, q]."""
    rng = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(data.labels == c) for c in range(data.labels.max() + 1)]
    usable = [rows for rows in rows_of if len(rows) >= shots + queries]
    for start in range(0, n, 100):
        b = min(100, n - start)
        picked = [rng.choice(len(usable), 5, replace=False) for _ in range(b)]
        rows = np.stack([[rng.choice(usable[c], shots + queries, replace=False) for c in p] for p in picked])
        labels = torch.arange(5).expand(b, 5)
        support = data.features[torch.from_numpy(rows[:, :, :shots].reshape(b, -1))]
        query = data.features[torch.from_numpy(rows[:, :, shots:].reshape(b, -1))]
        support_labels = labels.repeat_interleave(shots, dim=1)
        yield (
            FeatureBatch(support, support_labels, query, torch.full((b,), 5)),
            labels.repeat_interleave(queries, dim=1),
        )


def compare_logistic(report: Report, data: Cached, n: int) -> None:
    """Logistic regression against scikit-learn called per task."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    ours, theirs, same, strength = 0.0, 0.0, [], 0.01
    for batch, _ in balanced_episodes(data, n, 5, 15 if np.bincount(data.labels).max() >= 20 else 5):
        flat = batch.unit()
        ours += seconds(partial(logistic_regression, flat, strength=strength))
        guess = logistic_regression(flat, strength=strength).argmax(-1).numpy()
        pairs = [(flat.support[i].numpy(), flat.query[i].numpy()) for i in range(len(guess))]
        start = time.perf_counter()
        for place, (support, query) in enumerate(pairs):
            model = LogisticRegression(C=1 / (strength * len(support)), max_iter=1000)
            model.fit(support, batch.support_labels[place].numpy())
            same.append((model.predict(query) == guess[place]).mean())
        theirs += time.perf_counter() - start
    note = f"{data.name}: {100 * np.mean(same):.2f} % equal predictions"
    report.add("heads/logistic_vs_sklearn", ours / n, "s/task", theirs / n, theirs / ours, note=note)


def time_heads(report: Report, data: Cached, n: int) -> None:
    """Seconds to score 1,000 cached 5-way 5-shot episodes with 5 queries a class."""
    batches = [batch for batch, _ in balanced_episodes(data, n, 5, 5)]
    flat = [batch.unit() for batch in batches]
    for name, spec in HEADS.items():
        params = spec.params

        def work(name: str = name, params: dict[str, Any] = params) -> None:
            for batch in flat:
                apply_head(name, params, batch, balanced=True)

        report.add(f"heads/{name}/1000_episodes", seconds(work) * 1000 / n, "s")


def small_class_tasks(data: Cached, classes: np.ndarray[Any, Any], n: int, seed: int) -> list[Episode]:
    """`n` tasks of 2-20 ways and 5 queries per class, as for the reference values: classes of any size, and 1 to 10
    shots, but no more than the smallest class allows."""
    rng, rows_of = np.random.default_rng(seed), data.pool.rows_of_class
    usable = np.array([c for c in classes if len(rows_of[c]) > 5])
    tasks = []
    for _ in range(n):
        ways = int(rng.integers(2, min(20, len(usable)) + 1))
        chosen = rng.choice(usable, ways, replace=False)
        shots = int(rng.integers(1, min(10, min(len(rows_of[c]) for c in chosen) - 5) + 1))
        picked = [rng.choice(rows_of[c], shots + 5, replace=False) for c in chosen]
        support, query = (
            np.concatenate([r[part] for r in picked]) for part in (slice(shots), slice(shots, None))
        )
        labels = np.arange(ways)
        tasks.append(Episode(ways, shots, support, labels.repeat(shots), query, labels.repeat(5), 0))
    return tasks


def whitened(report: Report, data: Cached, splits: int) -> None:
    """Normalised accuracy in % of nearest centroid (Euclidean, on features of unit length) after whitening,
    150 tasks over each of some splits of the classes."""
    means: list[float] = []
    plain: list[float] = []
    widths: list[float] = []
    for seed in range(splits):
        statistics, held = data.split(seed)
        episodes = ValidationEpisodes(small_class_tasks(data, held, 150, seed))
        for metric, found in ((statistics.fit(WHITENED), means), (statistics.fit(METRICS["l2"]), plain)):
            answer = episodes.answer(metric(data.features), "centroid", {"metric": "euclidean"}, metric)
            found.append(100 * answer.mean)
            if found is means:
                widths.append(100 * interval95(answer.accuracies))
    value, width = float(np.mean(means)), float(np.mean(widths))
    reference, interval = PUBLISHED.get(data.name, (None, 0.0))
    note = f"± {width:.1f} over tasks, {min(means):.1f} to {max(means):.1f} over {splits} splits, "
    note += f"{np.mean(plain):.1f} before" + (f"; reference ± {interval}" if reference else "")
    ratio = value / reference if reference else None
    report.add(f"heads/whitened/{data.name}", value, "%", reference, ratio, note=note)


def main() -> None:
    """Run everything that the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer tasks, two datasets: under a minute")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--data", type=Path, help="folder of datasets in Meta-Album layout")
    parser.add_argument("--threads", type=int, help="of both sides; all cores by default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    warnings.filterwarnings("ignore", category=FutureWarning)
    report = Report()
    folders = sorted(f.parent for f in options.data.glob("*/labels.csv")) if options.data else []
    if options.quick:
        folders = [f for f in folders if f.name in ("CLIPART", "TUXPHOTO")] or folders[:2]
    datasets = []
    with torch.inference_mode():
        for folder in folders:
            datasets.append(embedded(folder))
            if folder.name != "DIGITS":
                whitened(report, datasets[-1], 1 if options.quick else 5)
        for data in (datasets or [made_up()])[: 1 if options.quick else None]:
            if np.sort(np.bincount(data.labels[np.isin(data.labels, data.split(0)[1])]))[-8] >= 10:
                compare_easyfsl(report, data, *((100, 10) if options.quick else (1000, 200)))
                compare_logistic(report, data, 100)
        data, n = (datasets or [made_up()])[0], 200 if options.quick else 1000
        time_heads(report, data, n)
        time_six_modes(report, data, small_class_tasks(data, data.split(0)[1], n // 10, 0))
        time_fitting(report)
    if options.json:
        options.json.write_text(json.dumps(report.rows, indent=1))


if __name__ == "__main__":
    main()
