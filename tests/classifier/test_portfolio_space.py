"""How examples that a portfolio has encoded answer for other images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autometa.classifier.portfolio_space import FITTED_AVERAGING, UNFITTED_AVERAGING, PortfolioSpace
from autometa.classifier.spaces import Support
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
