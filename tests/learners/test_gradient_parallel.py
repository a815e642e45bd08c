"""A task on every core gives what a loop gives, and leaves nothing behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from gradient_cases import GRADIENT, built, double, gradients_of  # noqa: F401
from learner_cases import image_episode

from autometa.backbones import copy_sharing_tensors
from autometa.learners.episodes import InputEpisodes, stack_episodes
from autometa.learners.gradient.parallel import map_on_cores


@pytest.fixture
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def tasks(n: int = 5) -> InputEpisodes:
    """Tasks of one form, which differ by their seeds."""
    return stack_episodes([image_episode(3, 2, 2, seed) for seed in range(n)])


@pytest.mark.medium
@pytest.mark.usefixtures("_two_threads", "double")
@pytest.mark.parametrize("norm", ["transductive", "support"])
def test_gradients_on_all_cores_are_those_of_the_loop(norm: str) -> None:
    found = [gradients_of(built("maml", norm=norm, tasks=way), tasks()) for way in ("loop", "cores")]
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", GRADIENT)
def test_answers_do_not_depend_on_the_number_of_cores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = built(name, test_steps=2)(tasks())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    torch.testing.assert_close(built(name, test_steps=2)(tasks()), alone)


@pytest.mark.usefixtures("_two_threads")
def test_gradients_are_added_to_those_that_are_there() -> None:
    learner = built("fomaml", tasks="cores").train()
    learner.zero_grad()
    learner.accumulate(tasks())
    once = [p.grad.clone() for p in learner.parameters() if p.grad is not None]
    learner.accumulate(tasks())
    twice = [p.grad for p in learner.parameters() if p.grad is not None]
    for one, two in zip(once, twice, strict=True):
        torch.testing.assert_close(two, 2 * one)


@pytest.mark.usefixtures("_two_threads")
def test_work_keeps_its_order_its_copy_and_the_mode_of_gradients() -> None:
    learner, meeting = built("maml"), threading.Barrier(2, timeout=20)
    busy: set[int] = set()

    def work(own: Any, place: int) -> tuple[int, bool]:
        assert id(own) not in busy
        busy.add(id(own))
        meeting.wait()  # two at a time, each with a copy of its own
        busy.discard(id(own))
        return place, torch.is_grad_enabled()

    with torch.no_grad():
        assert list(map_on_cores(learner, work, 4)) == [(place, False) for place in range(4)]


@pytest.mark.usefixtures("_two_threads")
def test_an_error_on_one_core_is_the_caller_s() -> None:
    def work(_: Any, place: int) -> int:
        if place == 2:
            raise ValueError("task 2")
        return place

    with pytest.raises(ValueError, match="task 2"):
        list(map_on_cores(built("maml"), work, 4))


def test_copies_share_tensors_and_nothing_else() -> None:
    learner = built("maml", norm="support")
    copy = copy_sharing_tensors(learner)
    for mine, theirs in zip(learner.parameters(), copy.parameters(), strict=True):
        assert mine is theirs
    assert all(a is not b for a, b in zip(learner.modules(), copy.modules(), strict=True))
