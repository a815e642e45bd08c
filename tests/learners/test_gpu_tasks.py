"""Tasks at once on a GPU: how many is a matter of measured memory, and CUDA graphs give the same gradients. The
device, its memory and its graphs are stand-ins."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradient_cases import built, double, gradients_of  # noqa: F401
from learner_cases import image_episode

from autometa.core.tensor_memory import TensorCounter, measure_peak
from autometa.learners.episodes import InputEpisodes, stack_episodes
from autometa.learners.gradient import batching
from autometa.learners.gradient.base import GradientLearner
from autometa.learners.gradient.batching import GpuTasks
from autometa.learners.gradient.captured import MOST_GRAPHS, SEEN, CapturedTasks
from autometa.learners.gradient.task_memory import TaskMemory

FIXED, IMAGE = 1000, 10
"""Bytes, of a stand-in."""


def tasks(n: int, shots: int = 2) -> InputEpisodes:
    """Tasks of one form, which differ by their seeds."""
    return stack_episodes([image_episode(3, shots, 2, seed) for seed in range(n)])


def capture_by_doing_again(captured: list[Any]) -> Callable[..., Any]:
    """As `capture_cuda`, with work that is done again instead of a graph, into the same tensors."""

    def capture(work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        loss, gradients = work()
        kept = loss.clone(), tuple(None if g is None else g.clone() for g in gradients)
        captured.append(kept)

        def replay() -> None:
            again, others = work()
            kept[0].copy_(again)
            for mine, other in zip(kept[1], others, strict=True):
                if mine is not None:
                    mine.copy_(other)

        return replay, kept

    return capture


def gpu_tasks(learner: GradientLearner, room: float = math.inf, **more: Any) -> GpuTasks:
    """Tasks at once where a task takes `FIXED` bytes and `IMAGE` for every image."""
    seen: list[int] = []

    def measure(work: Callable[[], object]) -> int:
        work()
        seen.append(len(seen) + 1)
        return FIXED + IMAGE * 12 * seen[-1]

    return GpuTasks(learner.train(), tasks(3), room=lambda: room, measure=measure, **more)


@pytest.mark.parametrize(
    ("room", "times", "expected"),
    [
        (math.inf, math.inf, 16),
        (FIXED + 100 * 5, math.inf, 5),
        (FIXED + 100 * 5 - 1, math.inf, 4),
        (0, math.inf, 1),
        (math.inf, 1.0, 1),
        (math.inf, 1.5, 6),
        (FIXED + 100 * 3, 1.5, 3),
    ],
)
def test_as_many_tasks_as_room_and_multiple_allow(room: float, times: float, expected: int) -> None:
    memory = TaskMemory.measure(lambda n: FIXED + 100 * n, images=10)
    assert memory == TaskMemory(FIXED, 10)
    assert memory.count_fitting(16, 10, room, times) == expected
    assert memory.count_fitting(16, 20, FIXED + 100 * 5) == 2, "larger tasks are fewer"


def test_a_task_that_seems_to_take_nothing_is_all_that_is_known() -> None:
    memory = TaskMemory.measure(lambda _: 70, images=7)
    assert memory == TaskMemory(0, 10)


@pytest.mark.medium
def test_the_memory_of_second_order_tasks_is_measured() -> None:
    learner, episodes = built("maml").train(), tasks(5)
    at_once = GpuTasks(learner, episodes, room=lambda: math.inf)
    assert all(parameter.grad is None for parameter in learner.parameters())
    predicted = at_once.memory.peak_bytes(5, 12)
    measured = measure_peak(lambda: at_once(learner, episodes), "cpu")
    assert measured == pytest.approx(predicted, rel=0.25)
    first_order = GpuTasks(built("fomaml").train(), episodes, room=lambda: math.inf)
    assert first_order.memory.image_bytes < at_once.memory.image_bytes


def test_chunks_fit_the_room_and_are_alike() -> None:
    at_once = gpu_tasks(built("maml"), room=FIXED + IMAGE * 12 * 4)
    assert at_once.chunk(tasks(4), math.inf) == 4
    assert at_once.chunk(tasks(9), math.inf) == 3, "not 4, 4 and 1"
    assert at_once.chunk(tasks(9, shots=8), math.inf) == 1


@pytest.mark.medium
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "name", ["maml", "fomaml", "anil", "boil", "meta_sgd", "proto_maml", "cavia", "cavia_class"]
)
def test_graphs_give_the_gradients_of_the_loop(name: str) -> None:
    expected = gradients_of(built(name, tasks="loop"), tasks(5))
    captured: list[Any] = []
    learner = built(name)
    at_once = gpu_tasks(
        learner,
        room=FIXED + IMAGE * 12 * 2,
        captured=CapturedTasks(learner, capture_by_doing_again(captured)),
    )
    for step in range(SEEN + 1):
        learner.zero_grad()
        loss = at_once(learner, tasks(5))
        assert len(captured) == (step + 1 >= SEEN), "a form that comes again has a graph"
        found = {n: p.grad for n, p in learner.named_parameters() if p.grad is not None}
        assert found.keys() == expected.keys()
        for key, gradient in expected.items():
            torch.testing.assert_close(found[key], gradient, rtol=1e-9, atol=1e-12)
    assert loss == pytest.approx(learner.accumulate(tasks(5)))
    at_once(learner, tasks(5))
    assert all(p.grad is not kept for p in learner.parameters() for kept in captured[0][1])


@pytest.mark.medium
def test_a_graph_is_of_one_form_and_of_the_parameters_it_was_made_for() -> None:
    captured: list[Any] = []
    learner = built("maml")
    at_once = gpu_tasks(learner, captured=CapturedTasks(learner, capture_by_doing_again(captured)))
    for _ in range(3):
        at_once(learner, tasks(4))
        at_once(learner, tasks(4, shots=1))
    assert len(captured) == 2
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.sub_(0.01)
    at_once(learner, tasks(4))
    assert len(captured) == 2, "parameters that were changed in place are where they were"
    learner.start_weight.data = learner.start_weight.data.clone()
    for _ in range(2):
        at_once(learner, tasks(4))
    assert len(captured) == 3


@pytest.mark.medium
def test_graphs_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autometa.learners.gradient.captured.MOST_GRAPHS", 1)
    captured: list[Any] = []
    learner = built("maml")
    at_once = gpu_tasks(learner, captured=CapturedTasks(learner, capture_by_doing_again(captured)))
    for _ in range(2):
        at_once(learner, tasks(4))
        at_once(learner, tasks(4, shots=1))
    assert len(captured) == 1 < MOST_GRAPHS


def test_without_graphs_tasks_are_taken_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    learner = built("maml")

    def fail(_: object) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    captured = CapturedTasks(learner, fail)
    at_once = gpu_tasks(learner, captured=captured)
    with caplog.at_level("INFO"):
        losses = [at_once(learner, tasks(4)) for _ in range(3)]
    assert captured.broken == "operation not permitted when stream is capturing"
    assert caplog.text.count("without CUDA graphs") == 1
    assert losses == pytest.approx([losses[0]] * 3)


def test_a_capture_that_fails_gives_back_the_memory_of_those_before() -> None:
    learner, done = built("maml"), list[Any]()

    def capture(work: Callable[[], Any]) -> Any:
        if done:
            raise RuntimeError("CUDA out of memory")
        return capture_by_doing_again(done)(work)

    captured = CapturedTasks(learner, capture)
    at_once = gpu_tasks(learner, captured=captured)
    for shots in (2, 2, 1, 1):
        at_once(learner, tasks(4, shots=shots))
    assert captured.broken == "CUDA out of memory" and not captured._graphs


def test_what_only_the_first_backward_pass_takes_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    learner = built("maml")

    def measure(work: Callable[[], object]) -> int:
        measured.append(done[0])
        work()
        return 100

    done = [0]
    loss = learner.task_loss

    def count(task: Any) -> torch.Tensor:
        done[0] += 1
        return loss(task)

    monkeypatch.setattr(learner, "task_loss", count)
    monkeypatch.setattr(batching, "starts_cold", lambda _: True)
    GpuTasks(learner, tasks(4), room=lambda: math.inf, measure=measure)
    assert measured[0] == 1, "one task was done before"


@pytest.mark.parametrize(
    ("norm", "memory", "expected"), [("support", None, 2), ("support", 3.0, 3), ("per_step", None, 1)]
)
def test_a_plan_for_a_gpu_counts_the_tasks_of_a_graph(
    norm: str, memory: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "maml_plus_plus" if norm == "per_step" else "maml"
    learner = built(name, norm=norm, task_memory=memory)
    monkeypatch.setattr("autometa.learners.gradient.base.get_device", lambda _: torch.device("cuda"))
    assert learner.count_at_once(8) == expected and learner.count_at_once(1) == 1
    loop = built(name, norm=norm, task_memory=memory, tasks="loop")
    assert loop.count_at_once(8) == 1


def test_the_counter_counts_what_lives() -> None:
    with TensorCounter() as counter:
        first = torch.zeros(1000)
        view = first.view(10, 100)
        second = view + 1
        del second
        first.add_(1)
        assert counter.now_bytes == 4000
    assert counter.peak_bytes == 8000
