"""Does transduction harm if queries are not balanced? The six modes against their own inductive counterparts, on
tasks whose class shares come from a Dirichlet distribution (Veilleux et al. 2021).

    python benchmarks/unbalanced.py [--data DIR] [--datasets A,B] [--episodes N] [--quick] [--json FILE]

The modes stand on one view, frozen Lite0, with equal weights; their metrics are fitted to some classes, tasks have
others. Modes do not know whether queries are balanced: the guard decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _learner_data import Dataset, choose_datasets, load
from _learner_report import Report, row

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget
from autometa.data.episodes import EpisodeBatch, EpisodeSpec, sample_episodes
from autometa.evaluation.accuracy import interval95
from autometa.evaluation.mixing import average
from autometa.evaluation.validation_episodes import ValidationEpisodes
from autometa.heads import FeatureBatch, FeatureStatistics, find_metric
from autometa.heads.modes import SIX_MODES, Key, answer_alone, apply_modes, collect_keys, join_features
from autometa.model.inputs import list_inputs

DEMO = Path(__file__).parents[1] / "examples" / "demo"
VIEW = View("tf_efficientnet_lite0", 128)
SPEC = EpisodeSpec(ways=(2, 20), shots=(1, 10), queries_per_class=10)
SEED = 2


def moved_features(data: Dataset) -> dict[Key, torch.Tensor]:
    """Features [n, d] of all images of a dataset, by the keys of the modes; metrics are fitted to the classes for
    that."""
    images = data.pool.images
    store = FeatureStore(BackboneShelf("cpu"), MemoryBudget.of_machine(), ahead=len(images))
    rows = np.isin(data.pool.labels, data.fit).nonzero()[0]
    labels = torch.from_numpy(data.pool.labels[rows])
    keys = collect_keys(SIX_MODES)
    views = {one for key in keys for one, _ in list_inputs([VIEW], key)}
    features = {one: store.embed(one, images, range(len(images))) for one in views}
    fitted = {one: FeatureStatistics(of[rows], labels) for one, of in features.items()}
    return {
        key: join_features(
            [fitted[one].fit(find_metric(name))(features[one]) for one, name in list_inputs([VIEW], key)]
        )
        for key in keys
    }


def gather(moved: Mapping[Key, torch.Tensor], batch: EpisodeBatch) -> dict[Key, FeatureBatch]:
    """The features of a batch of episodes by key."""
    return {
        key: FeatureBatch(
            features[batch.support_rows],
            batch.support_labels,
            features[batch.query_rows],
            batch.ways,
            batch.query_labels >= 0,
        )
        for key, features in moved.items()
    }


def measure(folder: Path, n_episodes: int, report: Report) -> None:
    """One dataset: for balanced and for unbalanced queries, the modes and their counterparts on the same tasks."""
    data = load(folder)
    moved = moved_features(data)
    for name, balanced in (("balanced", True), ("dirichlet", False)):
        spec = replace(SPEC, balanced=balanced)
        drawn = sample_episodes(data.pool, data.test, spec, n_episodes, np.random.default_rng(SEED))
        episodes = ValidationEpisodes(drawn)
        ours, alone = (
            episodes.measure(
                [
                    average(list(answer(SIX_MODES, gather(moved, batch))), [1.0] * len(SIX_MODES))
                    for batch in episodes.batches
                ]
            ).accuracies
            for answer in (apply_modes, answer_alone)
        )
        gain = ours - alone
        report.add(
            [
                row(
                    f"unbalanced/{folder.name}/{name}",
                    100 * float(ours.mean()),
                    "%",
                    100 * float(alone.mean()),
                    ci95=100 * interval95(ours),
                    note=f"gain {100 * gain.mean():+.2f} ± {100 * interval95(gain):.2f}",
                )
            ]
        )


def main() -> None:
    """Measure what the arguments ask for."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument(
        "--data", type=Path, default=DEMO, help="datasets in Meta-Album layout; the demo by default"
    )
    parser.add_argument("--datasets", help="names, comma-separated; all by default")
    parser.add_argument("--episodes", type=int, default=300, help="tasks of each kind")
    parser.add_argument("--quick", action="store_true", help="60 tasks of one dataset")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    chosen = choose_datasets(options.data, options.datasets)
    episodes = 60 if options.quick else options.episodes
    report = Report(options.json, f"{episodes} tasks", resume=False)
    for folder in chosen[:1] if options.quick else chosen:
        measure(folder, episodes, report)


if __name__ == "__main__":
    main()
