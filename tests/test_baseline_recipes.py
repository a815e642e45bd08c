"""What the bundles with one learner train by."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

import ingestion.api
from autometa.learners.hooks import ClassTrained
from autometa.learners.recipe import LEARNERS, Recipe, read_options

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

_learner_units: Any = importlib.import_module("_learner_units")

OPTIONS: dict[str, dict[str, Any]] = {
    "maml": {"steps": 5, "test_steps": 5},
    "fomaml": {"steps": 5, "test_steps": 5, "head": "prototypes"},
    "meta_sgd": {"steps": 5, "test_steps": 5},
    "maml_plus_plus": {"steps": 5, "test_steps": 5, "adapt_norm": False, "first_order_share": 0.0},
    "anil": {"steps": 5, "test_steps": 5, "head": "prototypes"},
    "cavia": {"conditioning": "film", "head": "prototypes", "steps": 2, "test_steps": 2},
    "lstm_meta_learner": {"steps": 5, "test_steps": 5},
    "reptile": {"steps": 8, "test_steps": 5, "rate": 3e-4},
    "mann": {"own_rows": True, "rows": "task"},
    "relation": {"reduction": "normalised", "loss": "cross_entropy"},
    "siamese": {"loss": "cross_entropy"},
    "pmf": {"metric": "cosine", "steps": 50},
    "metadelta_plus_plus": {"cosine": True},
}
"""What makes these bundles what the documentation says that they are."""


def recipe_of(name: str, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setitem(sys.modules, "api", ingestion.api)
    spec = importlib.util.spec_from_file_location(f"bundle_{name}", ROOT / "baselines" / name / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe: Recipe = module.MyMetaLearner.recipe
    return recipe


@pytest.mark.parametrize("name", OPTIONS)
def test_a_bundle_has_the_options_of_its_page(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_options(recipe_of(name, monkeypatch)).model_dump()
    assert {option: found[option] for option in OPTIONS[name]} == OPTIONS[name]


def test_reptile_is_not_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of("reptile", monkeypatch)
    assert recipe.training.clip is None and recipe.queries_per_class == 10


@pytest.mark.parametrize(
    "name", sorted(set(LEARNERS) - {"train_from_scratch", "metadelta", "metadelta_plus_plus"})
)
def test_the_benchmark_measures_the_bundle(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = recipe_of(name, monkeypatch)
    measured = _learner_units.Unit("SOME", own.encoder.network, name).recipe()
    kept = {"norm"}  # a pretrained network keeps its norms
    ours, theirs = (read_options(recipe).model_dump(exclude=kept) for recipe in (own, measured))
    assert ours == theirs
    assert own.training.model_dump() == measured.training.model_dump()
    if not issubclass(LEARNERS[name].cls, ClassTrained):  # what these are trained on is of a form of its own
        assert own.queries_per_class == measured.queries_per_class
