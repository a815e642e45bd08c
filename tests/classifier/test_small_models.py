"""A size that has room for a network but not for metrics on its features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from colours import many_classes, picture, write_folder
from pydantic import ByteSize

from autometa.classifier.options import FitOptions
from autometa.classifier.portfolio_space import PortfolioSpace
from autometa.classifier.training import fit_folder

LIMIT = 1_600_000
"""Of a network of 0.8 MB."""


@pytest.mark.medium
@pytest.mark.parametrize(
    ("write", "green"),
    [(lambda folder: write_folder(folder, 10), {"green"}), (many_classes, {"class 1", "class 4"})],
)
def test_where_metrics_are_too_large_features_are_kept_all_the_same(
    network: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], Path],
    green: set[str],
) -> None:
    """A fixed recipe learns from three classes, a search from six. As pixels, there was room for few examples."""
    monkeypatch.setenv("AUTOMETA_CACHE_DIR", str(tmp_path / "cache"))
    data, lines = write(tmp_path / "data"), list[str]()
    options = FitOptions(output=tmp_path / "model", backbones=network, max_model_size=ByteSize(LIMIT))
    fitted = fit_folder(data, options, lines.append)
    assert any("no metrics are fitted: with them, one@128 alone would be over" in line for line in lines), (
        lines
    )
    space = fitted.classifier._source.space
    assert isinstance(space, PortfolioSpace) and space.is_unfitted
    assert fitted.figures["serving"]["bytes"] <= LIMIT and fitted.figures["over_limits"] == []
    assert set(fitted.classifier.summary()["examples"].values()) == {10}
    assert fitted.classifier.predict([picture("green", 9)])[0] in green
