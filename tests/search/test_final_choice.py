"""The end of a search: which ensembles are asked about fresh episodes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from synthetic import FakeClock

from autometa.backbones import View
from autometa.core.budget import TimeBudget
from autometa.core.errors import BudgetExhausted
from autometa.core.time_policy import POLICY
from autometa.evaluation.validation_episodes import Answer
from autometa.search import final_choice
from autometa.search.candidates import HeadCandidate
from autometa.search.ensembles import WeightedCandidate
from autometa.search.final_choice import FinalChoice

VIEWS = [View("a", 128, variant="tuned"), View("a", 224, variant="tuned"), View("b", 128)]
MEMBERS: list[WeightedCandidate] = [(HeadCandidate(view, "ot_map", {}), 1.0, 1.0) for view in VIEWS]


@pytest.mark.parametrize(("left_s", "asked"), [(100.0, 3), (11.0, 2), (1.0, 1)])
def test_larger_ensembles_are_asked_only_where_meta_test_still_fits(
    left_s: float, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meta-test takes two seconds a member, and so does asking it about fresh episodes; saving takes one."""
    options = [MEMBERS[:1], MEMBERS[:2], MEMBERS]
    monkeypatch.setattr(final_choice, "ensembles", lambda *_: options)
    answers = {1: 0.5, 2: 0.6, 3: 0.6}
    heard: list[int] = []

    def fresh_answer(_: FinalChoice, members: list[WeightedCandidate]) -> Answer:
        heard.append(len(members))
        return Answer((), np.full(9, answers[len(members)]))

    monkeypatch.setattr(FinalChoice, "_fresh_answer", fresh_answer)
    clock = FakeClock()
    limits = SimpleNamespace(train=TimeBudget.of(1000, clock), run=TimeBudget.of(left_s, clock))
    forecast = SimpleNamespace(
        limits=limits,
        policy=POLICY,
        image_s=None,
    )
    lines: list[str] = []
    validation_set = SimpleNamespace(episodes=None)
    trials: Any = SimpleNamespace(
        forecast=forecast,
        validation_set=validation_set,
        report=lines.append,
        fresh_s=lambda candidate: 2.0,
        fits=None,
        meta_test_s=lambda candidates: 2.0 * len(candidates),
    )
    members, answer = FinalChoice(trials, 4).chosen([])
    assert lines[0].count("members") == asked - 1 and "50.0 ± 0.0 with the best head" in lines[0]
    assert heard == [1, 2, 3][:asked]
    assert members == options[asked - 1] and answer.mean == answers[asked]


def test_members_that_are_late_on_fresh_episodes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(final_choice, "ensembles", lambda *_: [MEMBERS[:1], MEMBERS])
    monkeypatch.setattr(FinalChoice, "_may_ask", lambda *_: True)

    def fresh_answer(_: FinalChoice, members: list[WeightedCandidate]) -> Answer:
        if len(members) > 1:
            raise BudgetExhausted("maml needs 9 s more")
        return Answer((), np.full(9, 0.5))

    monkeypatch.setattr(FinalChoice, "_fresh_answer", fresh_answer)
    lines: list[str] = []
    forecast = SimpleNamespace(image_s=None)
    trials: Any = SimpleNamespace(
        forecast=forecast, validation_set=SimpleNamespace(episodes=None), report=lines.append, fits=None
    )
    assert FinalChoice(trials, 4).chosen([])[0] == MEMBERS[:1]
    assert lines[0] == "3 members are left out: maml needs 9 s more"
