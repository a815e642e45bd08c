"""Every baseline is a small bundle that runs here and under the original challenge code."""

from __future__ import annotations

import re
from pathlib import Path

import original_program
import pytest

ROOT = Path(__file__).parents[1]
BUNDLES = sorted(folder.parent for folder in (ROOT / "baselines").glob("*/model.py"))

FEW_STEPS = 1
STEPS = {"snail": 30, "mann": 60}
"""Of learners that start from random weights and guess."""
SMALLER = b"px=128", b"px=64"
"""Networks embed the tasks' images at the size that these have, which takes a fourth of the time."""
SEARCH_S, LONG_S = 12, 600
"""Budgets: of bundles that fill it, and of those that make so many steps, which are done long before."""


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
    trains_one_learner = "EpisodicMetaLearner" in (bundle / "model.py").read_text()
    copy = tmp_path / bundle.name
    copy.mkdir()
    for file in bundle.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes().replace(*SMALLER))
    settings = copy / "settings.yaml"
    if settings.exists():
        budget = f"time_budget: {SEARCH_S}s\n"
        test = "{tasks: 4, ways: 5, shots: 4, queries_per_class: 6}"
        if trains_one_learner:
            steps = STEPS.get(bundle.name, FEW_STEPS)
            budget = f"time_budget: {LONG_S}s\nmax_steps: {steps}\nvalidation_episodes: 10\n"
            test = test if bundle.name in STEPS else "{tasks: 4, ways: 2-5, shots: 1-4, queries_per_class: 2}"
        settings.write_text(f"{budget}test: {test}\n")
    model = tmp_path / "model"
    model.mkdir()
    played = original_program.play(copy, model)
    assert played.status == 0, played.output
    trained = r": ([1-9]\d* steps in|0 steps .* nothing to train)"
    assert not trains_one_learner or re.search(trained, played.output), played.output
    if bundle.name == "random":
        assert played.accuracy < 0.5
    else:
        assert played.accuracy > 0.5, played.output
