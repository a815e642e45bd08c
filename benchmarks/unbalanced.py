"""Does transduction harm if queries are not balanced? An ensemble of transductive heads against its own
inductive ensemble, on tasks whose class shares come from a Dirichlet distribution (Veilleux et al. 2021).

    python benchmarks/unbalanced.py [--data DIR] [--datasets A,B] [--episodes N] [--quick] [--json FILE]

The ensemble is the broad one that the search would choose among first guesses with three metrics on frozen Lite0, on
held-out classes; tasks have other classes. Heads do not know whether queries are balanced: the guard decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _learner_data import load
from _learner_report import Report, row
from autometa.search.candidates import Candidate, HeadCandidate, Outcome
from autometa.search.ensembles import WeightedCandidate, ensembles

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget
from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.evaluation.accuracy import interval95
from autometa.evaluation.mixing import apply_temperature, average_batches
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.heads import HEADS, FeatureStatistics, HeadSpec, Metric, find_metric

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "demo"
VIEW = View("tf_efficientnet_lite0", 128)
SPEC = EpisodeSpec(ways=(2, 20), shots=(1, 10), queries_per_class=10)
METRICS = ("root_white_weak", "root_cl2n", "root_l2")
ALONE = " alone"
"""Suffix of the name of the inductive counterpart of a head."""
CHOSEN_ON, REPORTED_ON = 1, 2
"""Seeds of episodes to choose on and to report."""


def with_counterparts() -> None:
    """Register the inductive counterparts of all transductive heads as heads."""
    for name, spec in list(HEADS.items()):
        if spec.counterpart is not None:
            HEADS[name + ALONE] = HeadSpec(spec.counterpart, spec.space, spec.transforms)


def inductive(members: Sequence[WeightedCandidate]) -> list[WeightedCandidate]:
    """The ensemble with every transductive head replaced by its counterpart."""
    return [(_alone(candidate), temperature, weight) for candidate, temperature, weight in members]


def _alone(candidate: Candidate) -> Candidate:
    if isinstance(candidate, HeadCandidate) and candidate.head + ALONE in HEADS:
        return replace(candidate, head=candidate.head + ALONE)
    return candidate


class Tasks:
    """Episodes of some classes on features; `moved` has, by name, each metric and the features float32 [n, d] after
    it."""

    def __init__(self, episodes: ValidationEpisodes, moved: dict[str, tuple[Metric, torch.Tensor]]) -> None:
        self.episodes, self._moved = episodes, moved

    def outcomes(self) -> list[Outcome]:
        """The answers of the first guesses of all heads with each metric that they allow."""
        candidates = [
            HeadCandidate(VIEW, head, {"transform": name, **spec.first_params()})
            for head, spec in HEADS.items()
            if not head.endswith(ALONE)
            for name in self._moved
            if name in spec.transforms
        ]
        return [Outcome(one, "ok", 0.0, self._answer(one)) for one in candidates]

    def accuracies(self, members: Sequence[WeightedCandidate]) -> np.ndarray:
        """Normalised accuracy of an ensemble on every episode, float64 [episodes]."""
        calibrated = [
            apply_temperature(self._answer(candidate).scores, temperature)
            for candidate, temperature, _ in members
        ]
        return self.episodes.measure(
            average_batches(calibrated, [weight for _, _, weight in members])
        ).accuracies

    def _answer(self, candidate: Candidate) -> Answer:
        metric, features = self._moved[candidate.params["transform"]]
        return self.episodes.answer(features, candidate.head, candidate.params, metric)


def measure(folder: Path, n_episodes: int, report: Report) -> None:
    """One dataset: for balanced and for unbalanced queries, the ensemble that fresh validation classes choose and its
    inductive counterpart, on the same tasks of the test classes."""
    data = load(folder)
    store = FeatureStore(BackboneShelf("cpu"), MemoryBudget.of_machine(), ahead=len(data.pool.images))
    features = store.embed(VIEW, data.pool.images, range(len(data.pool.images)))
    rows = np.isin(data.pool.labels, data.fit).nonzero()[0]
    fitted = FeatureStatistics(features[rows], torch.from_numpy(data.pool.labels[rows]))
    metrics = {name: fitted.fit(find_metric(name)) for name in METRICS}
    moved = {name: (metric, metric(features)) for name, metric in metrics.items()}
    for name, balanced in (("balanced", True), ("dirichlet", False)):
        spec = replace(SPEC, balanced=balanced)
        chosen_on, reported_on = (
            Tasks(
                ValidationEpisodes(
                    sample_episodes(data.pool, classes, spec, n_episodes, np.random.default_rng(seed))
                ),
                moved,
            )
            for classes, seed in ((data.validation, CHOSEN_ON), (data.test, REPORTED_ON))
        )
        members = ensembles(chosen_on.outcomes(), chosen_on.episodes, lambda _: True, lambda _: 1.0, 4)[-1]
        ours, alone = (reported_on.accuracies(m) for m in (members, inductive(members)))
        gain = ours - alone
        told = f"gain {100 * gain.mean():+.2f} ± {100 * interval95(gain):.2f}: "
        told += ", ".join(candidate.head for candidate, _, _ in members)
        report.add(
            [
                row(
                    f"unbalanced/{folder.name}/{name}",
                    100 * float(ours.mean()),
                    "%",
                    100 * float(alone.mean()),
                    ci95=100 * interval95(ours),
                    note=told,
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
    folders = sorted(file.parent for file in options.data.glob("*/labels.csv"))
    names = options.datasets.split(",") if options.datasets else [f.name for f in folders]
    if unknown := set(names) - {f.name for f in folders}:
        raise SystemExit(
            f"--datasets {unknown.pop()}: {options.data} has {', '.join(f.name for f in folders)}"
        )
    chosen = [f for f in folders if f.name in names]
    episodes = 60 if options.quick else options.episodes
    report = Report(options.json, f"{episodes} tasks", resume=False)
    with_counterparts()
    for folder in chosen[:1] if options.quick else chosen:
        measure(folder, episodes, report)


if __name__ == "__main__":
    main()
