"""The end of a search: tuned copies once more on all classes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from autometa.backbones import View
from autometa.finish import Finish
from autometa.outcomes import Candidate
from autometa.selection import Weighted

VIEWS = [View("a+tuned", 128), View("a+tuned", 224), View("b", 128)]
MEMBERS: list[Weighted] = [(Candidate(view, "ot_map", {}), 1.0, 1.0) for view in VIEWS]


@pytest.mark.parametrize("works", [True, False])
def test_a_copy_on_several_views_is_tuned_again_once(works: bool) -> None:
    asked: list[View] = []

    def on_all_classes(view: View, spare_s: float) -> View | None:
        asked.append(view)
        return replace(view, backbone=f"{view.backbone}-all") if works else None

    trials: Any = SimpleNamespace(
        tuner=SimpleNamespace(copies=["a+tuned"], on_all_classes=on_all_classes),
        forecast=SimpleNamespace(spare_s=lambda views: 50.0),
    )
    again = Finish(trials, 4).tuned_on_all(MEMBERS)
    assert asked == [VIEWS[0]]
    names = [candidate.view.backbone for candidate, _, _ in again]
    assert names == (["a+tuned-all", "a+tuned-all", "b"] if works else [])
