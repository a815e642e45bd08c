"""Heads against their counterparts in easyfsl, on the same features and tasks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _head_data import Cached, Report, seconds

from autometa.data.episodes import Episode, EpisodeSpec, sample_episodes
from autometa.evaluation.accuracy import interval95
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.heads import METRICS


@dataclass(frozen=True)
class Rival:
    """A head with its metric and parameters, and easyfsl's method for it."""

    row: str
    head: str
    metric: str
    method: str
    params: dict[str, Any] = field(default_factory=dict)


RIVALS = (
    Rival("ot_map_vs_easyfsl_ptmap", "ot_map", "root_l2", "PTMAP", {"sharpness": 15.0}),
    Rival("centroid_vs_easyfsl", "centroid", "none", "PrototypicalNetworks", {"metric": "euclidean"}),
    Rival("simpleshot_vs_easyfsl", "simpleshot", "cl2n", "SimpleShot"),
    Rival("bd_cspn_vs_easyfsl", "bd_cspn", "l2", "BDCSPN", {"sharpness": 3.0, "shift": 1.0}),
    Rival("laplacian_vs_easyfsl", "laplacian", "l2", "LaplacianShot", {"sharpness": 20.0, "agreement": 1.0}),
    Rival("tim_vs_easyfsl", "tim", "l2", "TIM", {"sharpness": 10.0}),
)
"""easyfsl has no method for the other heads."""


def compare_easyfsl(report: Report, data: Cached, n: int, n_theirs: int) -> None:
    """Heads on `n` cached tasks, as the search runs them, against easyfsl's methods, which take one task at a
    time, on the first `n_theirs` of them (PT-MAP on all): seconds per task, and accuracy on common tasks."""
    try:
        from easyfsl import methods  # noqa: PLC0415
    except ImportError:
        print("heads/*_vs_easyfsl: skipped, easyfsl is not installed")
        return
    statistics, held = data.split(0)
    sizes = np.bincount(data.labels)[held]
    shots, queries = (5, 15) if np.sort(sizes)[-8] >= 20 else (3, 7)
    spec = EpisodeSpec((5, 5), (shots, shots), queries)
    tasks = sample_episodes(data.pool, held[sizes >= shots + queries], spec, n, np.random.default_rng(0))
    for rival in RIVALS:
        metric = statistics.fit(METRICS[rival.metric])

        def answer(rival: Rival = rival, metric: Any = metric) -> Answer:
            episodes = ValidationEpisodes(tasks)
            features = metric(data.features)
            return episodes.answer(features, rival.head, rival.params, metric, balanced=True)

        ours, right = seconds(answer) / n, answer().accuracies
        common = tasks if rival.method == "PTMAP" else tasks[:n_theirs]
        found, theirs = their_accuracies(getattr(methods, rival.method), given(data, rival, metric), common)
        # plain accuracies in points: with 5 ways, differences of normalised ones are 5/4 as large
        gain = 80 * right[: len(common)] + 20 - found
        note = f"{data.name}: accuracy {gain.mean():+.2f} ± {interval95(gain):.2f} points"
        note += f", {len(common)} tasks, {shots} shots"
        report.add(f"heads/{rival.row}", ours, "s/task", theirs, theirs / ours, note=note)


def given(data: Cached, rival: Rival, metric: Any) -> torch.Tensor:
    """The features [n, d] for easyfsl. Its PT-MAP takes the square root itself but does not scale; the root of
    features that sum to one has unit length."""
    if rival.method == "PTMAP":
        return F.normalize(data.features, p=1.0, dim=-1)
    moved: torch.Tensor = metric(data.features)
    return moved


def their_accuracies(
    method: Any, features: torch.Tensor, tasks: list[Episode]
) -> tuple[np.ndarray[Any, Any], float]:
    """Accuracy in points of each task, and seconds per task."""
    found = []
    with torch.inference_mode(False), torch.enable_grad():  # TIM takes gradient steps
        features = features.clone()
        start = time.perf_counter()
        for task in tasks:
            model = method()
            model.process_support_set(features[task.support_rows], torch.from_numpy(task.support_labels))
            guess = model(features[task.query_rows]).argmax(-1).numpy()
            found.append(100 * float((guess == task.query_labels).mean()))
    return np.array(found), (time.perf_counter() - start) / len(tasks)
