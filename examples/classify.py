"""Classify your own images with a learner that a run has saved.

    python examples/classify.py MODEL_DIR LABELLED_DIR IMAGE [IMAGE ...]

MODEL_DIR is `output/…/ingestion/model` of any run; LABELLED_DIR has one subfolder per class with a few images
each: any number of classes, also new ones that the run has not seen.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from autometa import load_learner
from autometa.classifier.sources import trained_preparation
from ingestion import Preparation, decode_image
from ingestion.datasets import read_class_folders


def read_images(files: Iterable[Path], preparation: Preparation) -> np.ndarray:
    """uint8 [n, 3, px, px], RGB, prepared as the images that the learner was trained on."""
    return np.stack([decode_image(file.read_bytes(), preparation) for file in files])


def main(model_dir: str, labelled_dir: str, *images: str) -> None:
    """Print the most probable class of each image with its probability."""
    learner, preparation = load_learner(Path(model_dir)), trained_preparation(Path(model_dir))
    labelled = read_class_folders(Path(labelled_dir))
    classes = labelled.class_names
    predictor = learner.fit(read_images(labelled.files, preparation), labelled.labels, len(classes))
    probabilities = predictor.predict(read_images(map(Path, images), preparation))
    for image, p in zip(images, probabilities, strict=True):
        print(f"{image}: {classes[p.argmax()]} ({p.max():.0%})")


if __name__ == "__main__":
    main(*sys.argv[1:])
