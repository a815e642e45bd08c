"""How examples that a portfolio has encoded answer for other images."""

from __future__ import annotations

import json
import pickle
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from colours import pictures, write_folder

from autometa.classifier import FewShotClassifier
from autometa.classifier.options import FitOptions
from autometa.classifier.portfolio_space import (
    FITTED_AVERAGING,
    MEANS_ALONE,
    UNFITTED_AVERAGING,
    Averaging,
    PortfolioSpace,
)
from autometa.classifier.spaces import Support
from autometa.classifier.training import fit_folder
from autometa.evaluation.mixing import IDENTITY_TEMPERATURE
from autometa.heads.modes import SIX_MODES, UNFITTED
from autometa.heads.refine import DEFAULT_REFINEMENT
from autometa.model.portfolio_description import WeightedMode


def space_of(*modes: str) -> PortfolioSpace:
    """A space with these modes; its images are encoded by hand."""
    weighted = [WeightedMode(name=name) for name in modes]
    made: Any = SimpleNamespace(
        modes=weighted, refinement=DEFAULT_REFINEMENT, temperature=IDENTITY_TEMPERATURE
    )
    return PortfolioSpace(made)


def averaging_of(classifier: FewShotClassifier) -> Averaging:
    """How a classifier answers that was made with a portfolio."""
    space = classifier._source.space
    assert isinstance(space, PortfolioSpace)
    return space.averaging


def misleading(name: str) -> tuple[Support, dict[str, torch.Tensor]]:
    """Two classes of ten. What tells them apart is small; something larger that does not is uneven: eight of the one
    class have it, two of the other. A query of each class is like the fewer ones of its own."""
    large = torch.tensor([1.0] * 8 + [-1.0] * 2 + [-1.0] * 8 + [1.0] * 2)
    small = torch.tensor([0.3] * 10 + [-0.3] * 10)
    rows, queries = torch.stack([large, small], 1), torch.tensor([[-1.0, 0.3], [1.0, -0.3]])
    support = Support({name: rows}, torch.arange(2).repeat_interleave(10), 2)
    return support, {name: queries}


@pytest.mark.parametrize(("mode", "name"), [("plain", "white_prior"), ("root", "root_white_prior")])
def test_ridge_regression_sees_what_class_means_do_not(mode: str, name: str) -> None:
    space = space_of(mode)
    support, query = misleading(name)
    answers = space.answer(support, query, transductive=False)
    kept = space._kept[support]
    means = space._mix(kept.means.answer({(name, False): query[name]}))
    ridge = (query[name] @ kept.ridge).double()
    assert means.argmax(1).tolist() == [1, 0] and ridge.argmax(1).tolist() == [0, 1]
    both = (ridge / 0.075).log_softmax(1) + (means / 0.75).log_softmax(1)
    assert torch.allclose(answers, (both / 2).log_softmax(1))


def test_ridge_regression_looks_at_the_same_features_whatever_the_order_of_modes() -> None:
    assert space_of(*SIX_MODES).ridge_key == ("white_prior", False)
    assert space_of("root").ridge_key == ("root_white_prior", False)
    assert space_of(*UNFITTED).ridge_key == ("root_l2", False)
    assert space_of(*SIX_MODES).averaging == FITTED_AVERAGING
    assert space_of(*UNFITTED).averaging == UNFITTED_AVERAGING


def test_an_image_that_is_no_number_counts_as_nothing() -> None:
    space = space_of("plain")
    support, query = misleading("white_prior")
    rows = torch.cat([support.encoded["white_prior"], torch.full((1, 2), torch.nan)])
    spoilt = Support({"white_prior": rows}, torch.cat([support.labels, torch.ones(1, dtype=torch.long)]), 2)
    queries = {"white_prior": torch.cat([query["white_prior"], torch.full((1, 2), torch.inf)])}
    assert space.answer(spoilt, queries, transductive=False).isfinite().all()


def test_class_means_alone_are_what_they_were() -> None:
    space, (support, query) = space_of("plain"), misleading("white_prior")
    space.told = MEANS_ALONE
    answers = space.answer(support, query, transductive=False)
    means = space._mix(space._kept[support].means.answer({("white_prior", False): query["white_prior"]}))
    assert torch.allclose(answers, means.log_softmax(1))


@pytest.mark.medium
def test_a_saved_classifier_answers_as_it_did(network: str, tmp_path: Path) -> None:
    """Also one of version 0.2.0, which says nothing of the averaging."""
    options = FitOptions(output=tmp_path / "model", backbones=network, time_budget=30.0)
    made = fit_folder(write_folder(tmp_path / "data", 6), options, lambda line: None).classifier
    plain = pictures(1, start=50)[0]
    queries = (plain // 2 + plain[[1, 2, 0]] // 2).astype(np.uint8)  # no colour of any class
    usual, file = made.predict_proba(queries), tmp_path / "model" / "classifier.json"
    np.testing.assert_allclose(
        FewShotClassifier.load(tmp_path / "model").predict_proba(queries), usual, atol=2e-3
    )
    np.testing.assert_allclose(pickle.loads(pickle.dumps(made)).predict_proba(queries), usual, atol=2e-3)
    saved = json.loads(file.read_text())
    del saved["checksum"]
    assert saved.pop("averaging") == list(astuple(FITTED_AVERAGING))
    file.write_text(json.dumps(saved))
    earlier = FewShotClassifier.load(tmp_path / "model")
    answers = earlier.predict_proba(queries)
    assert averaging_of(earlier) == MEANS_ALONE and np.abs(answers - usual).max() > 1e-3
    earlier.save(tmp_path / "again")
    for kept in (FewShotClassifier.load(tmp_path / "again"), pickle.loads(pickle.dumps(earlier))):
        np.testing.assert_allclose(kept.predict_proba(queries), answers, atol=2e-3)
    other = FewShotClassifier(tmp_path / "model").fit(*pictures(3))
    assert averaging_of(other) == FITTED_AVERAGING, "new examples are answered as they are now"
