"""A head of your own: a function and a row, then measured against the nearest class mean on the same episodes.

    python examples/own_head.py [--data FOLDER] [--episodes N] [--backbone NAME] [--size PX]

FOLDER has a subfolder of images for each class; the demo's icons by default. The head answers with the class of the
nearest support image. In the repository it would be a file in `autometa/heads` and a row of its table
(`docs/adding.md`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from autometa import FittedLearner
from autometa.backbones.shelf import BackboneShelf
from autometa.evaluation.member import Member
from autometa.heads import HEADS, FeatureBatch, HeadSpec
from ingestion import decode_image, read_labelled

ICONS = Path(__file__).parent / "demo" / "ICONS"
WAYS, SHOTS, QUERIES = 5, 3, 5


def nearest_image(batch: FeatureBatch, *, sharpness: float) -> torch.Tensor:
    """Scores [b, q, n]: the largest cosine with a support image of the class, times a sharpness."""
    batch = batch.unit()
    cosines = batch.query @ batch.support.transpose(1, 2)  # [b, q, s]
    of_class = batch.one_hot.bool()[:, None]  # [b, 1, s, n]
    by_class = cosines[..., None].masked_fill(~of_class, -torch.inf).amax(2)  # [b, q, n]
    return batch.mask_absent(sharpness * by_class)


def learner_with(head: str, backbone: str, size: int) -> FittedLearner:
    """A learner that answers by one head on one frozen backbone."""
    params = {"transform": "l2", **HEADS[head].params}
    member = Member(backbone=backbone, px=size, head=head, params=params)
    return FittedLearner((member,), BackboneShelf("cpu"))


def accuracies(learner: FittedLearner, folder: Path, episodes: int, size: int) -> np.ndarray:
    """Accuracy on each of the same random episodes, [episodes]."""
    labelled, rng, found = read_labelled(folder), np.random.default_rng(0), []
    rows = [np.flatnonzero(labelled.labels == number) for number in range(len(labelled.class_names))]
    labels, asked = np.repeat(np.arange(WAYS), SHOTS), np.repeat(np.arange(WAYS), QUERIES)
    for _ in range(episodes):
        classes = rng.choice(len(rows), WAYS, replace=False)
        drawn = np.stack([rng.choice(rows[number], SHOTS + QUERIES, replace=False) for number in classes])
        support, query = (
            np.stack([decode_image(labelled.files[row].read_bytes(), size) for row in part.ravel()])
            for part in (drawn[:, :SHOTS], drawn[:, SHOTS:])
        )
        answers = learner.fit(support, labels, WAYS).predict(query).argmax(1)
        found.append(float(np.mean(answers == asked)))
    return np.array(found)


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Add the row, measure, print; the accuracies of both heads."""
    parser = argparse.ArgumentParser(description="A head of your own.")
    parser.add_argument("--data", type=Path, default=ICONS, help="default: %(default)s")
    parser.add_argument("--episodes", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="default: %(default)s")
    parser.add_argument("--size", type=int, default=128, help="pixels (default %(default)s)")
    given = parser.parse_args(arguments)

    HEADS["nearest_image"] = HeadSpec(nearest_image, {"sharpness": 20.0})
    found = {}
    for head in ("nearest_image", "centroid"):
        learner = learner_with(head, given.backbone, given.size)
        found[head] = accuracies(learner, given.data, given.episodes, given.size)
        print(
            f"{head:14} {found[head].mean():.1%} of {WAYS * QUERIES} queries right, {given.episodes} episodes"
        )
    difference = found["nearest_image"] - found["centroid"]
    half = 1.96 * difference.std() / len(difference) ** 0.5
    print(f"difference     {100 * difference.mean():+.1f} ± {100 * half:.1f} points on the same episodes")
    return found


if __name__ == "__main__":
    main()
