"""A classifier from three images of each class, without training: what it answers and how good it is.

    python examples/few_shot_classifier.py [--data FOLDER] [--shots N] [--preset NAME]

FOLDER has a subfolder of images for each class; the demo's icons by default. The first five classes are learned from
N images each; all their other images are asked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autometa import FewShotClassifier
from ingestion import read_labelled

ICONS = Path(__file__).parent / "demo" / "ICONS"
CLASSES = 5


def split(folder: Path, shots: int) -> tuple[list[Path], list[str], list[Path], list[str]]:
    """Files and classes of the images to learn from, `shots` of each class, and of the others."""
    labelled = read_labelled(folder)
    learned: tuple[list[Path], list[str]] = [], []
    asked: tuple[list[Path], list[str]] = [], []
    for number, name in enumerate(labelled.class_names[:CLASSES]):
        files = [labelled.files[row] for row in np.flatnonzero(labelled.labels == number)]
        for part, (into, names) in ((files[:shots], learned), (files[shots:], asked)):
            into.extend(part)
            names.extend([name] * len(part))
    return (*learned, *asked)


def show(files: list[Path], classes: NDArray[np.str_], probabilities: NDArray[np.float64]) -> None:
    """A line for each file, with its two most probable classes."""
    for file, p in zip(files, probabilities, strict=True):
        best = p.argsort()[::-1][:2]
        print(f"{file.name}: " + ", ".join(f"{classes[i]} {p[i]:.0%}" for i in best))


def main(arguments: list[str] | None = None) -> float:
    """Learn, ask, print; the accuracy."""
    parser = argparse.ArgumentParser(description="Few-shot classification in three lines.")
    parser.add_argument("--data", type=Path, default=ICONS, help="default: %(default)s")
    parser.add_argument("--shots", type=int, default=3, help="images of each class (default %(default)s)")
    parser.add_argument("--preset", default="auto", help="backbones (default %(default)s)")
    given = parser.parse_args(arguments)

    files, names, new_files, new_names = split(given.data, given.shots)
    classifier = FewShotClassifier(preset=given.preset).fit(files, names)
    probabilities = classifier.predict_proba(new_files)

    few = slice(0, None, max(len(new_files) // 5, 1))
    show(new_files[few], classifier.classes_, probabilities[few])
    accuracy = float(np.mean(classifier.classes_[probabilities.argmax(1)] == new_names))
    print(f"\n{accuracy:.0%} of {len(new_files)} new images right, from {given.shots} images of each class")
    print("\nSeen by", ", ".join(classifier.summary()["members"]))
    print("Each example answered by the others:")
    print(classifier.leaderboard())
    return accuracy


if __name__ == "__main__":
    main()
