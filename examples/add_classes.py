"""A classifier that is saved, loaded, and learns a further class from two images, without training.

    python examples/add_classes.py [--data FOLDER] [--preset NAME]

FOLDER has a subfolder of images for each class; the demo's icons by default.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from autometa import FewShotClassifier
from ingestion import read_labelled

ICONS = Path(__file__).parent / "demo" / "ICONS"
SHOTS = 2


def files_of(folder: Path) -> dict[str, list[Path]]:
    """Files by class."""
    labelled = read_labelled(folder)
    return {
        name: [labelled.files[row] for row in np.flatnonzero(labelled.labels == number)]
        for number, name in enumerate(labelled.class_names)
    }


def main(arguments: list[str] | None = None) -> list[str]:
    """Learn two classes, save, load, learn a third; what is said of a new image of it before and after."""
    parser = argparse.ArgumentParser(description="Classes that are added without training.")
    parser.add_argument("--data", type=Path, default=ICONS, help="default: %(default)s")
    parser.add_argument("--preset", default="auto", help="backbones (default %(default)s)")
    given = parser.parse_args(arguments)

    images = files_of(given.data)
    first, second, third, *_ = images
    classifier = FewShotClassifier(preset=given.preset).fit(
        images[first][:SHOTS] + images[second][:SHOTS], [first] * SHOTS + [second] * SHOTS
    )
    query = images[third][-1]
    said = []
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(folder)
        loaded = FewShotClassifier.load(folder)
        for _ in range(2):
            p = loaded.predict_proba([query])[0]
            shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(loaded.classes_, p, strict=True))
            print(f"{query.name}, which is of `{third}`: {shares}")
            said.append(str(loaded.predict([query])[0]))
            loaded.add_examples(images[third][:SHOTS], [third] * SHOTS)
    return said


if __name__ == "__main__":
    main()
