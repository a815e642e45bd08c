"""What tests of the classifier share: a tiny network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from autometa.backbones.catalogue import CATALOGUE
from autometa.classifier import sources


@pytest.fixture
def network(tiny_backbone: str, eager_only: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A preset of one tiny network with random weights, at a small size."""
    monkeypatch.setitem(CATALOGUE, "one", replace(CATALOGUE[tiny_backbone], name="one"))
    monkeypatch.setattr(sources, "PX", 64)
    sources.open_preset.cache_clear()
    yield "one"
    sources.open_preset.cache_clear()
