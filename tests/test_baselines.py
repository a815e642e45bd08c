"""Every baseline is a small bundle that runs here and under the original challenge code."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUNDLES = sorted(folder.parent for folder in (ROOT / "baselines").glob("*/model.py"))

FROM_NOTHING = {"relation", "cavia", "mann"}
"""Whose comparison of images starts from random weights: seconds of training do not make them good."""

SLOWEST = {"siamese", "snail"}
"""Which need most steps: on a machine with other load, three quarters of a minute are too few."""

ORIGINAL = """
    import sys
    import numpy as np
    import torch

    bundle, model_dir = sys.argv[1:]
    sys.path.insert(1, bundle)
    from model import MyLearner, MyMetaLearner

    class Task:
        pass

    class Logger:
        def log(self, *args, **kwargs):
            pass

    colours = torch.rand(14, 3, 1, 1, generator=torch.Generator().manual_seed(0))

    def images_of(classes, each, rng):
        labels = np.repeat(np.arange(len(classes)), each)
        noise = torch.from_numpy(rng.normal(0, 0.05, (len(labels), 3, 64, 64))).float()
        return (colours[classes][labels] + noise).clamp(0, 1), torch.from_numpy(labels)

    def generator(n):
        rng = np.random.RandomState(93)
        for _ in range(n):
            task, classes = Task(), rng.permutation(14)[:5]
            sets = [images_of(classes, each, rng) for each in (4, 6)]
            task.num_ways, task.num_shots, task.dataset = 5, 4, "COLOURS"
            task.original_class_idx = classes
            task.support_set, task.query_set = (
                (images, labels, torch.from_numpy(classes[labels])) for images, labels in sets
            )
            yield task

    learner = MyMetaLearner(5, 14, Logger()).meta_fit(lambda n: generator(min(n, 30)), None)
    learner.save(model_dir)
    hits = []
    for task in generator(4):
        learner = MyLearner()
        learner.load(model_dir)
        predictor = learner.fit((*task.support_set, task.num_ways, task.num_shots))
        predictions = predictor.predict(task.query_set[0])
        assert isinstance(predictions, np.ndarray) and predictions.shape == (30, 5), predictions.shape
        hits.append((predictions.argmax(1) == task.query_set[1].numpy()).mean())
    print("accuracy", np.mean(hits))
"""


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda b: b.name)
def test_a_bundle_is_small_and_complete(bundle: Path) -> None:
    lines = [line for line in (bundle / "model.py").read_text().splitlines() if line.strip()]
    assert 10 <= len(lines) <= 40
    assert (bundle / "metadata").is_file()
    assert (bundle / "api.py").read_text() == (ROOT / "ingestion" / "api.py").read_text()
    assert not any(file.is_symlink() for file in bundle.iterdir())  # a copy or a zip would break a link


@pytest.mark.medium
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda b: b.name)
def test_it_runs_under_the_original_challenge_code(bundle: Path, tmp_path: Path) -> None:
    """A program that does what the original ingestion does: no environment variables, no `image_sets`,
    module `api` only from the bundle."""
    program = tmp_path / "original.py"
    program.write_text(textwrap.dedent(ORIGINAL))
    (tmp_path / "model").mkdir()
    copy = tmp_path / bundle.name
    copy.mkdir()
    for file in bundle.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    settings = copy / "settings.yaml"
    if settings.exists():
        seconds = 90 if bundle.name in SLOWEST else 42 if bundle.name in FROM_NOTHING else 15
        test = "{tasks: 4, ways: 5, shots: 4, queries_per_class: 6}"
        settings.write_text(f"time_budget: {seconds}s\ntest: {test}\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("METADL")}
    done = subprocess.run(
        [sys.executable, str(program), str(copy), str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    accuracy = float(done.stdout.split("accuracy")[-1])
    if bundle.name == "random":
        assert accuracy < 0.5
    else:
        assert accuracy > 0.5
