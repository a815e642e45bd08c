"""What rounding costs: engines and saved weights of less precision than float32, in speed, bytes and accuracy.

    python benchmarks/engines.py [--data DIR] [--datasets A,B] [--backbone NAME] [--px N] [--episodes N] [--quick]
                                 [--json FILE]

`engines/NAME`: images a second on this machine, in turns with the reference, the engine `openvino` in float32.
`engines/NAME/points/HEAD`: normalised accuracy in points less that with the reference's features, on the same tasks
of classes that no metric was fitted to, with the 95 % interval of the mean over tasks. HEAD is `centroid` (nearest
class mean of the last layer) or `transport` (whitened, then optimal transport, as runs do it). `int8` needs
`pip install nncf`. `model/half_weights`: bytes of a saved network in relation to float32, and the same points.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _int8 import INSTALLED, Int8
from _learner_data import Dataset, choose_datasets, load
from _learner_report import Report, Row, row
from embedding import Run, rounds

from autometa.backbones import STAGES, Backbone, View, build_backbone
from autometa.backbones.engines import ENGINES, Engine
from autometa.backbones.half_weights import halve, restore
from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.evaluation.accuracy import Scores, interval95
from autometa.evaluation.member import plain_member
from autometa.evaluation.validation_episodes import ValidationEpisodes, gather_features
from autometa.heads import FeatureStatistics, Metric, find_metric
from autometa.heads.modes import MODES, apply_modes

DEMO = Path(__file__).parents[1] / "examples" / "demo"
REFERENCE, MODE = "openvino", "transport"
SPEC = EpisodeSpec(ways=(2, 20), shots=(1, 10), queries_per_class=10)
SEED, CALIBRATION = 2, 256
TIMED_IMAGES, TIMED_S, QUICK_S = 64, 20.0, 3.0
HEADS, WEIGHTS = ("centroid", MODE), "model/half_weights"

Runner = Engine | Int8


def build_runners(backbone: Backbone, px: int, calibration: torch.Tensor) -> dict[str, Runner]:
    """The reference first, then what is compared with it, as far as it can be built here."""
    network = backbone.network
    runners: dict[str, Runner] = {REFERENCE: ENGINES[REFERENCE].build(network, px, "cpu")}
    try:
        runners["bfloat16"] = ENGINES["openvino-bfloat16"].build(network, px, "cpu")
    except RuntimeError as error:
        print(f"bfloat16 is left out: {error}")
    if INSTALLED:
        runners["int8"] = Int8(backbone, px, calibration)
    else:
        print("int8 is left out: pip install nncf")
    rounded = copy.deepcopy(network)
    rounded.model.load_state_dict(restore(halve(network.model.state_dict())))
    runners[WEIGHTS] = ENGINES[REFERENCE].build(rounded, px, "cpu")
    return runners


def measure_accuracies(
    backbone: Backbone, data: Dataset, features: torch.Tensor, n: int
) -> dict[str, Scores]:
    """Normalised accuracy in each of `n` tasks by head, with all layers [images, sum of widths] of the images."""
    drawn = sample_episodes(data.pool, data.test, SPEC, n, np.random.default_rng(SEED))
    episodes = ValidationEpisodes(drawn)
    plain, member = Metric(find_metric("l2")), plain_member(View(backbone.spec.name, 128))
    centroid = episodes.answer(plain(backbone.pick(features, ("last",))), member.head, member.params, plain)
    (key,) = MODES[MODE].keys
    joined, fit = backbone.pick(features, STAGES), np.isin(data.pool.labels, data.fit)
    statistics = FeatureStatistics(joined[fit], torch.from_numpy(data.pool.labels[fit]))
    moved = statistics.fit(find_metric(key[0]))(joined)
    scores = [apply_modes((MODE,), {key: gather_features(moved, batch)})[0] for batch in episodes.batches]
    return {"centroid": centroid.accuracies, MODE: episodes.measure(scores).accuracies}


def draw_calibration(sets: Sequence[Dataset]) -> torch.Tensor:
    """Images uint8 [n, 3, 128, 128] of classes that metrics are fitted to, of all datasets alike."""
    rng, parts = np.random.default_rng(SEED), []
    for data in sets:
        rows = np.flatnonzero(np.isin(data.pool.labels, data.fit))
        parts.append(data.pool.images[rng.permutation(rows)[: -(-CALIBRATION // len(sets))]])
    return torch.from_numpy(rng.permutation(np.concatenate(parts))[:CALIBRATION])


def score(backbone: Backbone, px: int, runner: Runner, data: Dataset, n: int) -> dict[str, Scores]:
    """What the tasks of a dataset are answered with the features of a runner, by head."""
    parts = torch.from_numpy(data.pool.images).split(TIMED_IMAGES)
    features = torch.cat([runner(backbone.preprocessing.resize(part, px)) for part in parts])
    return measure_accuracies(backbone, data, features, n)


def describe_points(
    name: str, head: str, ours: Sequence[dict[str, Scores]], theirs: Sequence[dict[str, Scores]]
) -> Row:
    """The row of the points that one runner gains on another with a head, over all datasets."""
    pairs = zip(ours, theirs, strict=True)
    gains = [100 * (one[head] - other[head]) for one, other in pairs]
    joined, reference = np.concatenate(gains), np.concatenate([each[head] for each in theirs])
    worst = min(float(each.mean()) for each in gains)
    note = f"of {100 * reference.mean():.1f} %, worst dataset {worst:+.2f}"
    return row(f"{name}/points/{head}", float(joined.mean()), "points", ci95=interval95(joined), note=note)


def compare(backbone: Backbone, px: int, sets: Sequence[Dataset], n: int, limit_s: float) -> list[Row]:
    """Rows of all that is compared."""
    chosen = backbone.preprocessing.resize(draw_calibration(sets), px)
    runners = build_runners(backbone, px, chosen)
    runs: dict[str, Run] = {
        "plain" if name == REFERENCE else name: partial(runner, chosen[:TIMED_IMAGES])
        for name, runner in runners.items()
    }
    seconds = rounds(runs, at_least=3, limit_s=limit_s)
    scored = {name: [score(backbone, px, each, data, n) for data in sets] for name, each in runners.items()}
    state = backbone.model.state_dict()
    n_bytes = [sum(tensor.nbytes for tensor in each.values()) / 1e6 for each in (halve(state), state)]
    rows = []
    for name in list(runners)[1:]:
        images_s = [min(TIMED_IMAGES, len(chosen)) / seconds[each] for each in (name, "plain")]
        speed = row(f"engines/{name}", images_s[0], "images/s", images_s[1])
        first = row(WEIGHTS, n_bytes[0], "MB", n_bytes[1]) if name == WEIGHTS else speed
        points = [describe_points(first["name"], head, scored[name], scored[REFERENCE]) for head in HEADS]
        rows += [first, *points]
    return rows


def main() -> None:
    """Measure what the arguments ask for."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument(
        "--data", type=Path, default=DEMO, help="datasets in Meta-Album layout; the demo by default"
    )
    parser.add_argument("--datasets", help="names, comma-separated; all by default")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", metavar="NAME")
    parser.add_argument("--px", type=int, default=128, metavar="N")
    parser.add_argument("--episodes", type=int, default=300, help="tasks of each dataset")
    parser.add_argument("--quick", action="store_true", help="60 tasks of one dataset, under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    options = parser.parse_args()
    if not ENGINES[REFERENCE].installed:
        raise SystemExit("the reference is OpenVINO: pip install -e '.[fast]'")
    folders = choose_datasets(options.data, options.datasets)
    sets = [load(folder) for folder in (folders[:1] if options.quick else folders)]
    backbone = build_backbone(options.backbone, "cpu")
    px, n = backbone.input_px(options.px), 60 if options.quick else options.episodes
    report = Report(options.json, f"{options.backbone}@{px}, {n} tasks", resume=False)
    report.add(compare(backbone, px, sets, n, QUICK_S if options.quick else TIMED_S))


if __name__ == "__main__":
    main()
