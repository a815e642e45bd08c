"""What the six modes and the metrics of a portfolio cost, for the benchmark of the heads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from _head_data import Cached, Report, made_up, seconds

from autometa.data.episodes import Episode
from autometa.heads import FeatureBatch, FeatureStatistics, find_metric
from autometa.heads.modes import SIX_MODES, Key, apply_modes, collect_keys, join_features

VIEWS = 4
LAYERS = (112, 320, 1280)
"""Widths of the layers of a view."""
Batches = dict[Key, FeatureBatch]


def time_six_modes(report: Report, data: Cached, tasks: Sequence[Episode]) -> None:
    """How many times longer one task takes with the six modes than with `transport`: tasks one by one, features of
    `VIEWS` views side by side, here the same ones."""
    statistics, _ = data.split(0)
    keys = collect_keys([*SIX_MODES, "transport"])
    moved = {key: join_features([statistics.fit(find_metric(key[0]))(data.features)] * VIEWS) for key in keys}
    batches = [_gather(moved, task) for task in tasks]
    six_s, one_s = [], []
    for each in batches:  # in turn, so that both see the same load
        six_s.append(seconds(partial(apply_modes, SIX_MODES, each, balanced=True)))
        one_s.append(seconds(partial(apply_modes, ["transport"], each, balanced=True)))
    note = f"{1000 * np.mean(six_s):.1f} ms a task against {1000 * np.mean(one_s):.1f} ms, {len(tasks)} tasks"
    report.add("heads/six_modes/ratio_to_transport", float(np.sum(six_s) / np.sum(one_s)), "x", note=note)


def _gather(moved: dict[Key, torch.Tensor], task: Episode) -> Batches:
    labels, ways = torch.from_numpy(task.support_labels)[None], torch.tensor([task.ways])
    return {
        key: FeatureBatch(features[task.support_rows][None], labels, features[task.query_rows][None], ways)
        for key, features in moved.items()
    }


def time_fitting(report: Report) -> None:
    """Seconds to fit all metrics of the six modes in `VIEWS` views, for 1,500 images of 60 classes."""
    data = made_up(each=25, d=sum(LAYERS))
    labels, layers = torch.from_numpy(data.labels), data.features.split(LAYERS, dim=1)
    keys, start = collect_keys(SIX_MODES), time.perf_counter()
    for _ in range(VIEWS):
        joined = FeatureStatistics(data.features, labels)
        alone = [FeatureStatistics(layer.contiguous(), labels) for layer in layers]
        for metric, single_layers in keys:
            for statistics in alone if single_layers else [joined]:
                statistics.fit(find_metric(metric))
    taken_s = time.perf_counter() - start
    report.add(
        "portfolio/fit_metrics_s", taken_s, "s", note=f"{VIEWS} views, {torch.get_num_threads()} threads"
    )
