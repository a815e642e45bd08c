"""Copies that runs share: taken over only where the training would have been given the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autometa.core import clock
from autometa.core.errors import BudgetExhausted
from autometa.search.shared_training import Given, SharedTraining, State

GB = 10**9
WHAT = {"view": "net+tuned@128", "rows": 100}


@pytest.fixture(autouse=True)
def own_charge(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(clock, "CHARGE", clock.Charge())
    yield


class Training:
    """Takes 30 s on the clock of the process."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> State:
        self.times += 1
        with clock.taking(30.0):
            return {"weight": torch.full((3,), float(self.times))}


def test_a_copy_is_trained_once_and_charged_twice(tmp_path: Path) -> None:
    work = Training()
    state, earlier = SharedTraining(tmp_path).train(WHAT, Given(40.0, 8 * GB), work)
    assert earlier is None
    before = clock.CHARGE.seconds
    again, earlier = SharedTraining(tmp_path).train(WHAT, Given(42.0, 8 * GB), work)
    assert work.times == 1 and earlier is not None
    assert torch.equal(state["weight"], again["weight"])
    assert clock.CHARGE.seconds - before == pytest.approx(30, rel=0.1)


@pytest.mark.parametrize(
    ("what", "given"),
    [
        (WHAT, Given(60.0, 8 * GB)),  # rates fall over the seconds that there are
        (WHAT, Given(30.0, 8 * GB)),
        (WHAT, Given(40.0, -GB)),  # it would not have had the memory
        ({**WHAT, "rows": 99}, Given(40.0, 8 * GB)),
    ],
)
def test_another_training_is_done(tmp_path: Path, what: dict[str, object], given: Given) -> None:
    work = Training()
    for description, own in ((WHAT, Given(40.0, 8 * GB)), (what, given)):
        _, earlier = SharedTraining(tmp_path).train(description, own, work)
        assert earlier is None
    assert work.times == 2


def test_the_charge_is_never_more_than_what_is_left(tmp_path: Path) -> None:
    work = Training()
    SharedTraining(tmp_path).train(WHAT, Given(30.0, 8 * GB), work)
    before = clock.CHARGE.seconds
    SharedTraining(tmp_path).train(WHAT, Given(26.0, 8 * GB), work)
    assert clock.CHARGE.seconds - before == pytest.approx(26, rel=0.1)


def test_a_training_that_fails_is_tried_again(tmp_path: Path) -> None:
    def fail() -> State:
        raise BudgetExhausted("too short")

    with pytest.raises(BudgetExhausted):
        SharedTraining(tmp_path).train(WHAT, Given(40.0, 8 * GB), fail)
    work = Training()
    SharedTraining(tmp_path).train(WHAT, Given(40.0, 8 * GB), work)
    assert work.times == 1
