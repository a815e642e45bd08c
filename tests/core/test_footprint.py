from __future__ import annotations

import pytest

from autometa.core import footprint
from autometa.core.errors import BrokenEnvironment, ConfigError
from autometa.core.footprint import Footprint, refuse_too_small

FOOTPRINT = Footprint(of_torch=294_000_000, of_all=352_000_000)


def test_the_least_budget_is_a_round_figure_above_what_libraries_take() -> None:
    assert FOOTPRINT.least_bytes == 400_000_000
    assert Footprint(1, 345_000_000).least_bytes == 390_000_000


def test_a_budget_that_libraries_use_up_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_too_small(300_000_000, pytest.fail, lambda: FOOTPRINT)
    assert str(caught.value) == (
        "--memory-budget 300MB: PyTorch alone takes 294 MB here, all libraries 352 MB; give 400MB or more"
    )


def test_what_libraries_take_of_a_small_budget_is_told() -> None:
    lines: list[str] = []
    refuse_too_small(500_000_000, lines.append, lambda: FOOTPRINT)
    assert lines == ["PyTorch alone takes 294 MB here, all libraries 352 MB; the memory budget is 500 MB"]


def test_libraries_that_take_too_long_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "LIMIT_S", 0.05)
    monkeypatch.setattr(footprint, "_CODE", "import time; time.sleep(60)")
    with pytest.raises(
        BrokenEnvironment, match=r"longer than 0 s; end other programs, or run: autometa doctor"
    ):
        refuse_too_small(10**9, pytest.fail)
