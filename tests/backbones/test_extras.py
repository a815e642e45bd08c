"""The extras `fast` and `weights` bring what the tables name. Without them these tests are skipped; with the option
`--all-extras` of pytest, that is a failure."""

from __future__ import annotations

import importlib

import pytest
import torch

from autometa.backbones.architecture import create_model
from autometa.backbones.catalogue import CATALOGUE
from autometa.backbones.engines.table import ENGINES
from autometa.backbones.weights import installed_backbones, load_pretrained


@pytest.mark.parametrize("name", [name for name, spec in ENGINES.items() if spec.packages])
def test_the_packages_of_an_engine_can_be_imported(name: str) -> None:
    if not ENGINES[name].installed:
        pytest.skip(
            f"the engine and what it needs, {' and '.join(ENGINES[name].packages)}, are not installed"
        )
    for package in ENGINES[name].packages:
        assert importlib.import_module(package).__version__


@pytest.mark.medium
@pytest.mark.parametrize("name", [name for name, spec in CATALOGUE.items() if spec.packaged])
def test_the_weights_of_the_catalogue_can_be_loaded(name: str) -> None:
    spec = CATALOGUE[name]
    if spec not in installed_backbones():
        pytest.skip(f"the weights of {name} are not installed")
    model = create_model(spec)
    before = [parameter.clone() for parameter in model.parameters()]
    load_pretrained(spec, model)
    changed = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert sum(changed) > 0.9 * len(changed)
