"""Classify your own images with a learner that a run has saved.

    python examples/classify.py MODEL_DIR LABELLED_DIR IMAGE [IMAGE ...]

MODEL_DIR is `output/…/ingestion/model` of any run; LABELLED_DIR has one subfolder per class with a few images
each: any number of classes, also new ones that the run has not seen.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from autometa import load_learner
from ingestion import decode_image
from ingestion.datasets import read_class_folders

DEFAULT_PX = 128
"""What ingestion gives unless told otherwise."""


def trained_px(model_dir: Path) -> int:
    """The size of the images that the learner was trained on: from the files of its run, where they lie beside it."""
    folder = model_dir.resolve().parent
    if (record := folder / "ingestion.json").exists():
        return int(json.loads(record.read_text())["image_size"])
    if (identity := folder / "run.json").exists():  # of a run that was killed
        return int(json.loads(identity.read_text())["tasks"]["image_size"])
    return DEFAULT_PX


def read_images(files: Iterable[Path], px: int) -> np.ndarray:
    """uint8 [n, 3, px, px], RGB, prepared as ingestion prepares the images of a run."""
    return np.stack([decode_image(file.read_bytes(), px) for file in files])


def main(model_dir: str, labelled_dir: str, *images: str) -> None:
    """Print the most probable class of each image with its probability."""
    learner, px = load_learner(Path(model_dir)), trained_px(Path(model_dir))
    labelled = read_class_folders(Path(labelled_dir))
    classes = labelled.class_names
    predictor = learner.fit(read_images(labelled.files, px), labelled.labels, len(classes))
    probabilities = predictor.predict(read_images(map(Path, images), px))
    for image, p in zip(images, probabilities, strict=True):
        print(f"{image}: {classes[p.argmax()]} ({p.max():.0%})")


if __name__ == "__main__":
    main(*sys.argv[1:])
