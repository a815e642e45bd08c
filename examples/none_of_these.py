"""A classifier that says "none of these" of images of classes that it does not know.

    python examples/none_of_these.py [--data FOLDER] [--below P] [--preset NAME]

FOLDER has a subfolder of images for each class; the demo's icons by default. Four classes are learned from five
images each. Then it is asked about other images of these classes, and about images of four classes that it never saw.
`reject_below` is calibrated on the examples themselves: each class is held out in turn and plays the unknown one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from autometa import FewShotClassifier
from ingestion import read_labelled

ICONS = Path(__file__).parent / "demo" / "ICONS"
KNOWN, SHOTS = 4, 5


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Learn, ask, print; the shares of known and of unknown images that are answered "none of these"."""
    parser = argparse.ArgumentParser(description="Images of unknown classes.")
    parser.add_argument("--data", type=Path, default=ICONS, help="default: %(default)s")
    parser.add_argument("--below", type=float, default=0.5, help="`reject_below` (default %(default)s)")
    parser.add_argument("--preset", default="auto", help="backbones (default %(default)s)")
    given = parser.parse_args(arguments)

    labelled = read_labelled(given.data)
    rows = [np.flatnonzero(labelled.labels == number) for number in range(2 * KNOWN)]
    learned = np.concatenate([each[:SHOTS] for each in rows[:KNOWN]])
    asked = {
        "known": np.concatenate([each[SHOTS:] for each in rows[:KNOWN]]),
        "unknown": np.concatenate(rows[KNOWN:]),
    }
    names = np.array(labelled.class_names)[labelled.labels]
    files = np.array(labelled.files, dtype=object)

    classifier = FewShotClassifier(preset=given.preset, reject_below=given.below)
    classifier.fit(files[learned], names[learned])
    print("classes:", ", ".join(classifier.classes_))
    shares = []
    for kind, chosen in asked.items():
        answers = classifier.predict(files[chosen])
        shares.append(float(np.mean(answers == "none of these")))
        print(f"{len(chosen)} images of {kind} classes: {shares[-1]:.0%} are none of these")
    return shares[0], shares[1]


if __name__ == "__main__":
    main()
