"""Make `tests/golden/release_X`: learners and classifiers as this release saves them, and what they answer.

Run it at each release, with the code of its tag. A folder that is there is never made again: later releases must read
it (tests/classifier/test_saved_classifier.py). All of it has a few kB.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autometa import FewShotClassifier, __version__
from autometa.learners.recipe import Recipe
from autometa.learners.trained import TrainedLearner

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
RECIPE = {
    "learner": "prototypical",
    "encoder": {"network": "conv4", "px": 16, "channels": 4, "pools": 4},
    "options": {"metric": "cosine"},
}
WAYS, SHOTS, PX = 3, 2, 16


def golden_images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [9, 3, 16, 16] and labels [9]: two of each class to learn from, then one of each to ask about. They are
    computed without random numbers, whose order may change."""
    places = np.arange(PX * PX * 3).reshape(3, PX, PX)
    labels = np.concatenate([np.repeat(np.arange(WAYS), SHOTS), np.arange(WAYS)])
    images = [(places * (3 + 5 * label) + 17 * number) % 251 for number, label in enumerate(labels)]
    return np.array(images, dtype=np.uint8), labels


def main() -> None:
    """Write the folder of this release."""
    folder = GOLDEN / f"release_{__version__.replace('.', '_')}"
    folder.mkdir()
    images, labels = golden_images()
    support, query, known = images[: WAYS * SHOTS], images[WAYS * SHOTS :], labels[: WAYS * SHOTS]
    torch.manual_seed(0)
    learner = TrainedLearner.untrained(Recipe.model_validate(RECIPE))
    (folder / "model").mkdir()
    learner.save(folder / "model")
    (folder / "ingestion.json").write_text(f'{{"image_size": {PX}}}\n')  # as in the folder of a run
    answers = {"learner": learner.fit(support, known, WAYS).predict(query).tolist()}
    names = np.array(["ant", "bee", "cat"])[known]
    classifier = FewShotClassifier(folder / "model").fit(support, names)
    answers["classifier"] = classifier.predict_proba(query).tolist()
    classifier.save(folder / "classifier")
    features = images.reshape(len(images), -1)[:, ::96].astype(np.float32)
    bare = FewShotClassifier(encoder="precomputed").fit(features[: WAYS * SHOTS], names)
    answers["precomputed"] = bare.predict_proba(features[WAYS * SHOTS :]).tolist()
    bare.save(folder / "precomputed")
    (folder / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
