"""What every optimisation-based learner must do, whatever it is."""

from __future__ import annotations

from typing import Any, cast, get_args

import pytest
import torch
from gradient_cases import GRADIENT, SMALLEST, VARIANTS, built, close, double, first_layer, gradients_of
from learner_cases import (
    assert_batch_is_one_by_one,
    image_episode,
    in_order,
    of_one_colour,
    only_first_query,
    renamed,
)

from autometa.core.errors import BudgetExhausted
from autometa.learners.episodes import InputEpisodes, stack_episodes
from autometa.learners.gradient import batching
from autometa.learners.gradient.base import GradientLearner
from autometa.learners.gradient.norm import PER_STEP, NormMode, TaskNorm
from autometa.learners.gradient.tasks import Task
from autometa.learners.recipe import LEARNERS, Recipe, build_learner

__all__ = ["double"]
exactly = pytest.mark.usefixtures("double")
every_learner = pytest.mark.parametrize("name", [*GRADIENT, *VARIANTS])
VECTORISED = [n for n in GRADIENT if cast(type[GradientLearner], LEARNERS[n].cls).vectorised] + [*VARIANTS]


def quick(name: str, **options: Any) -> Any:
    """A learner that takes few steps, and whose running statistics are those of images."""
    learner = built(name, **{"test_steps": 4, "tasks": "loop", **options})
    norms = [m for m in learner.modules() if isinstance(m, TaskNorm) and m.mode == "per_step"]
    if norms:
        for norm in norms:
            norm.momentum = 1.0
        learner.train()(image_episode(3, 2, 2, seed=99))
        for norm in norms:
            norm.momentum = 0.1
            for running in (norm.running_mean, norm.running_var):
                running.copy_(
                    running[min(learner.options.steps, len(running) - 1)].clone().expand_as(running)
                )
    return learner.eval()


def answer(learner: torch.nn.Module, episodes: InputEpisodes) -> torch.Tensor:
    return learner(episodes).softmax(-1)


@every_learner
def test_answers_differ_between_queries_and_carry_no_graph(name: str) -> None:
    p = answer(quick(name), image_episode(4, 2, 3))
    assert p.shape == (1, 12, 4) and not p.requires_grad
    assert not torch.allclose(p[0, 0], p[0, -1], rtol=1e-3, atol=0)


@every_learner
def test_permuting_labels_permutes_the_answer(name: str) -> None:
    learner, episodes = quick(name), image_episode(5, 2, 2)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        answer(learner, renamed(episodes, order))[..., order], answer(learner, episodes), atol=1e-3, rtol=0
    )


@exactly
@every_learner
def test_the_order_of_the_support_does_not_matter(name: str) -> None:
    learner, episodes = quick(name), image_episode(4, 2, 2)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        answer(learner, in_order(episodes, order)), answer(learner, episodes), atol=1e-5, rtol=0
    )


@every_learner
def test_a_padded_batch_equals_one_by_one(name: str) -> None:
    learner = quick(name)
    alone = [image_episode(*shape, seed=s) for s, shape in enumerate([(2, 1, 1), (5, 3, 2), (3, 2, 4)])]
    assert_batch_is_one_by_one(learner, alone, 1e-4)


@every_learner
@pytest.mark.parametrize(("ways", "shots", "queries"), [(2, 1, 1), (20, 1, 1), (2, 5, 2)])
def test_any_ways_and_shots(name: str, ways: int, shots: int, queries: int) -> None:
    p = answer(quick(name), image_episode(ways, shots, queries))
    assert p.shape == (1, ways * queries, ways)
    torch.testing.assert_close(p.sum(-1), torch.ones(1, ways * queries))


@every_learner
@pytest.mark.parametrize("norm", get_args(NormMode))
def test_a_single_query_is_answered_and_learned_from(name: str, norm: str) -> None:
    if name == "reptile" and norm in PER_STEP:
        pytest.skip("reptile has no scale and shift for each of its many steps")
    learner, episodes = quick(name, norm=norm, test_steps=2), image_episode(3, 1, 1)
    single = only_first_query(episodes)
    assert answer(learner, single).isfinite().all()
    assert all(g.isfinite().all() for g in gradients_of(learner, single).values())


@every_learner
@pytest.mark.parametrize("value", [0, 255])
def test_constant_images_give_equal_classes_and_finite_gradients(name: str, value: int) -> None:
    learner, episodes = quick(name), image_episode(4, 2, 1)
    same = of_one_colour(episodes, value)
    p = answer(learner, same)
    torch.testing.assert_close(p, torch.full_like(p, 0.25), atol=1e-3, rtol=0)
    assert all(g.isfinite().all() for g in gradients_of(learner, same).values())


@every_learner
def test_gradients_reach_every_parameter(name: str) -> None:
    learner = quick(name)
    gradients = gradients_of(
        learner, stack_episodes([image_episode(3, 2, 2, seed=1), image_episode(5, 1, 1, seed=2)])
    )
    wanted = {n for n, p in learner.named_parameters() if p.requires_grad}
    assert wanted - gradients.keys() == set()
    assert all(g.isfinite().all() for g in gradients.values())
    assert gradients[first_layer(learner)].abs().sum() > 0


@every_learner
def test_answering_leaves_the_learner_as_it_was(name: str) -> None:
    learner = quick(name)
    before = {n: t.clone() for n, t in learner.state_dict().items()}
    first, again = (answer(learner, image_episode(3, 2, 2)) for _ in range(2))
    torch.testing.assert_close(first, again)
    assert all(torch.equal(t, before[n]) for n, t in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())


@pytest.mark.parametrize("name", [n for n in [*GRADIENT, *VARIANTS] if n != "reptile"])
def test_a_loop_holds_the_graph_of_one_task_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, events = quick(name, tasks="loop"), []
    whole = learner.task_loss

    def watched(task: Task) -> torch.Tensor:
        loss = whole(task)
        events.append("made")
        loss.register_hook(lambda _: events.append("gone"))
        return loss

    monkeypatch.setattr(learner, "task_loss", watched)
    gradients_of(learner, stack_episodes([image_episode(3, 1, 1, seed=s) for s in range(3)]))
    assert events == ["made", "gone"] * 3


@exactly
@pytest.mark.parametrize("name", VECTORISED)
@pytest.mark.parametrize("norm", ["transductive", "support"])
def test_tasks_at_once_give_the_gradients_of_a_loop(name: str, norm: str) -> None:
    batch = stack_episodes([image_episode(3, 2, 2, seed=s) for s in range(3)])
    loop, at_once = (
        gradients_of(built(name, norm=norm, tasks=way, clip=None), batch) for way in ("loop", "vmap")
    )
    assert close(at_once, loop, 1e-8)


@pytest.mark.medium
@exactly
def test_less_memory_gives_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = stack_episodes([image_episode(2, 1, 1, seed=s) for s in range(5)])
    whole = gradients_of(built("maml", tasks="vmap"), batch)
    chunk = batching._accumulate_chunk

    def scarce(one: Any, tensors: Any, start: int, stop: int) -> float:
        loss = chunk(one, tensors, start, stop)
        if stop - start == 5 or (stop - start > 1 and start > 0):
            raise torch.OutOfMemoryError  # when gradients have been added
        return loss

    monkeypatch.setattr(batching, "_accumulate_chunk", scarce)
    assert close(gradients_of(built("maml", tasks="vmap"), batch), whole, 1e-8)
    learner = built("maml", tasks="vmap").train()
    for _ in range(2):
        learner.accumulate(batch)
    twice = {n: p.grad / 2 for n, p in learner.named_parameters() if p.grad is not None}
    assert close(twice, whole, 1e-8)


def test_a_task_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = built("maml", tasks="loop").train()

    def short(_: Task) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(learner, "task_loss", short)
    with pytest.raises(BudgetExhausted, match="not enough memory for a single task"):
        learner.accumulate(image_episode(2, 1, 1))


@pytest.mark.parametrize("name", GRADIENT)
def test_a_recipe_gives_the_same_learner_again(name: str) -> None:
    recipe = Recipe(learner=name, encoder=SMALLEST)
    first, again = build_learner(recipe).state_dict(), build_learner(recipe).state_dict()
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
