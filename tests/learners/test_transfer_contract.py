"""What every transfer learner must do, whatever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradient_cases import double
from learner_cases import (
    assert_batch_is_one_by_one,
    image_episode,
    images_like,
    in_order,
    of_one_colour,
    only_first_query,
    renamed,
)
from transfer_cases import ALONE, CLASSIFYING, QUICK, SMALLEST, TRANSFER, begun, built, classified_episode

from autometa.learners.base import EpisodicLearner
from autometa.learners.episodes import InputEpisodes, stack_episodes
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.trained import TrainedLearner

__all__ = ["double"]
exactly = pytest.mark.usefixtures("double")
every_learner = pytest.mark.parametrize("name", TRANSFER)
every_classifier = pytest.mark.parametrize("name", CLASSIFYING)


def answer(learner: EpisodicLearner, episodes: InputEpisodes) -> torch.Tensor:
    with torch.no_grad():
        return learner(episodes).softmax(-1)


def state_of(learner: EpisodicLearner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state_dict().items()}


@every_learner
def test_answers_differ_between_queries_and_carry_no_graph(name: str) -> None:
    scores = built(name)(image_episode(4, 2, 3)).detach()
    assert scores.shape == (1, 12, 4)
    assert not torch.allclose(scores[0, 0], scores[0, -1], rtol=1e-3, atol=0)


@exactly
@every_learner
def test_permuting_labels_permutes_the_answer(name: str) -> None:
    learner, episodes = built(name), image_episode(5, 2, 2)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        answer(learner, renamed(episodes, order))[..., order], answer(learner, episodes)
    )


@exactly
@every_learner
def test_the_order_of_the_support_does_not_matter(name: str) -> None:
    learner, episodes = built(name), image_episode(4, 3, 2)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        answer(learner, in_order(episodes, order)), answer(learner, episodes), atol=1e-5, rtol=0
    )


@every_learner
@pytest.mark.parametrize("threads", [1, 2])
def test_a_padded_batch_equals_one_by_one(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    learner = built(name)
    alone = [image_episode(*shape, seed=s) for s, shape in enumerate([(2, 1, 1), (5, 3, 2), (3, 2, 4)])]
    order = torch.tensor([4, 2, 0, 1, 3])
    alone[1] = renamed(alone[1], order)
    assert_batch_is_one_by_one(learner, alone, 1e-3)


@every_learner
@pytest.mark.parametrize(("ways", "shots", "queries"), [(2, 1, 1), (20, 1, 1), (2, 5, 2)])
def test_any_ways_and_shots(name: str, ways: int, shots: int, queries: int) -> None:
    p = answer(built(name), image_episode(ways, shots, queries))
    assert p.shape == (1, ways * queries, ways)
    torch.testing.assert_close(p.sum(-1), torch.ones(1, ways * queries))


@pytest.mark.parametrize("name", ALONE)
def test_a_single_query_is_answered_as_among_others(name: str) -> None:
    learner, episodes = built(name), image_episode(3, 1, 2)
    single = only_first_query(episodes)
    torch.testing.assert_close(
        answer(learner, single)[0, 0], answer(learner, episodes)[0, 0], atol=1e-3, rtol=0
    )


@every_learner
@pytest.mark.parametrize("value", [0, 255])
def test_constant_images_give_equal_classes(name: str, value: int) -> None:
    p = answer(built(name), of_one_colour(image_episode(4, 2, 1), value))
    # Adam's steps do not become smaller than its rate
    torch.testing.assert_close(p, torch.full_like(p, 0.25), atol=2e-2, rtol=0)


@every_learner
def test_answering_leaves_the_learner_as_it_was(name: str) -> None:
    learner = built(name)
    before = state_of(learner)
    first = answer(learner, image_episode(3, 2, 2))
    answer(learner, image_episode(5, 1, 1, seed=1))
    again = answer(learner, image_episode(3, 2, 2))
    assert torch.equal(first, again)
    assert all(torch.equal(t, before[n]) for n, t in learner.state_dict().items())
    assert all(p.grad is None for p in learner.parameters())


@every_learner
def test_a_recipe_gives_the_same_learner_again(name: str) -> None:
    recipe = Recipe(learner=name, encoder=SMALLEST)
    first, again = build_learner(recipe).state_dict(), build_learner(recipe).state_dict()
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)


@every_learner
def test_saved_and_loaded_answers_the_same(name: str, tmp_path: Path) -> None:
    learner = built(name)
    if name in CLASSIFYING:
        begun(learner)
    trained = TrainedLearner(Recipe(learner=name, encoder=SMALLEST, options=QUICK.get(name, {})), learner)
    trained.save(tmp_path)
    labels = torch.arange(3).repeat(2)
    images = images_like(labels, 5).numpy()
    answers = [
        t.fit(images, labels.numpy(), 3).predict(images) for t in (trained, TrainedLearner.load(tmp_path))
    ]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


@every_classifier
def test_the_loss_is_the_mean_over_all_images_of_padded_episodes(name: str) -> None:
    learner = built(name)
    begun(learner)
    alone = [classified_episode(2, 1, 3, seed=1), classified_episode(5, 2, 1, seed=2)]
    losses = [learner.loss(episodes).item() for episodes in alone]
    images = [e.support_labels.numel() + e.query_labels.numel() for e in alone]
    together = learner.loss(stack_episodes(alone)).item()
    assert together == pytest.approx(np.average(losses, weights=images), rel=1e-4)


@every_classifier
def test_the_classifier_is_trained_but_is_no_part_of_the_learner(name: str) -> None:
    learner: Any = built(name).train()
    before = set(learner.state_dict())
    classifier = begun(learner)
    learner.loss(classified_episode(4, 2, 1)).backward()
    grads = {n: p.grad for n, p in [*learner.named_parameters(), *classifier.named_parameters()]}
    assert [n for n, grad in grads.items() if grad is None or not grad.isfinite().all()] == []
    assert grads["encoder.network.0.0.weight"].abs().sum() > 0
    assert set(learner.state_dict()) == before
    assert not {id(p) for p in classifier.parameters()} & {id(p) for p in learner.parameters()}
