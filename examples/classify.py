"""Classify your own images with a learner that a run has saved.

    python examples/classify.py MODEL_DIR LABELLED_DIR IMAGE [IMAGE ...]

MODEL_DIR is `output/…/ingestion/model` of any run; LABELLED_DIR has one subfolder per class with a few images
each: any number of classes, also new ones that the run has not seen.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from autometa import load_learner

PX = 128


def read_images(files: list[Path]) -> np.ndarray:
    """uint8 [n, 3, 128, 128], RGB."""
    images = [np.asarray(Image.open(file).convert("RGB").resize((PX, PX))) for file in files]
    return np.stack(images).transpose(0, 3, 1, 2)


def main(model_dir: str, labelled_dir: str, *images: str) -> None:
    """Print the most probable class of each image with its probability."""
    learner = load_learner(Path(model_dir))
    classes = sorted(folder for folder in Path(labelled_dir).iterdir() if folder.is_dir())
    files = [(file, label) for label, folder in enumerate(classes) for file in sorted(folder.iterdir())]
    labels = np.array([label for _, label in files])
    predictor = learner.fit(read_images([file for file, _ in files]), labels, len(classes))
    probabilities = predictor.predict(read_images([Path(image) for image in images]))
    for image, p in zip(images, probabilities, strict=True):
        print(f"{image}: {classes[p.argmax()].name} ({p.max():.0%})")


if __name__ == "__main__":
    main(*sys.argv[1:])
