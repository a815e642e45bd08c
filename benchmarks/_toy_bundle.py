"""A bundle that answers with the nearest mean of the colours: it takes next to nothing, and can be made to fail."""

from __future__ import annotations

from pathlib import Path

MODEL = """
import os
import time
import numpy as np
from api import Learner, MetaLearner, Predictor

class MyMetaLearner(MetaLearner):
    def meta_fit(self, meta_train_generator, meta_valid_generator):
        <meta_fit>
        return MyLearner()

class MyLearner(Learner):
    fitted = 0
    def fit(self, support_set):
        MyLearner.fitted += 1
        return MyPredictor(support_set)
    def save(self, path_to_save):
        <save>
        open(f"{path_to_save}/saved.txt", "w").write("learner")
    def load(self, path_to_load):
        open(f"{path_to_load}/saved.txt").read()

class MyPredictor(Predictor):
    def __init__(self, support_set):
        images, labels, _, self.ways, _ = support_set
        colours = images.mean((2, 3)).numpy()
        self.means = np.stack([colours[labels.numpy() == c].mean(0) for c in range(self.ways)])
    def predict(self, query_set):
        colours = query_set.mean((2, 3)).numpy()
        scores = -((colours[:, None] - self.means[None]) ** 2).sum(-1)
        <predict>
        return scores
"""


def write_bundle(folder: Path, **steps: str) -> Path:
    """Write the bundle; `meta_fit`, `save` and `predict` are statements that these do in addition."""
    folder.mkdir(parents=True)
    text = MODEL
    for name in ("meta_fit", "save", "predict"):
        text = text.replace(f"<{name}>", steps.get(name, "pass"))
    (folder / "model.py").write_text(text, encoding="utf-8")
    return folder
