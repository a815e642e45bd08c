"""What every metric-based learner must do, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learner_cases import (
    METRIC,
    PX,
    TINY,
    assert_batch_is_one_by_one,
    assert_loss_falls,
    assert_validation_equals_answering,
    built,
    image_episode,
    in_order,
    of_one_colour,
    only_first_query,
    renamed,
)

from autometa.learners.base import EpisodicLearner
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import InputEpisodes, stack_episodes
from autometa.learners.recipe import Recipe, build_learner

every_learner = pytest.mark.parametrize("name", METRIC)
sees_order = {"matching_fce"}
draws_pairs = {"siamese"}
unordered_learner = pytest.mark.parametrize("name", [n for n in METRIC if n not in sees_order])


def answer(learner: EpisodicLearner, episodes: InputEpisodes) -> torch.Tensor:
    with torch.no_grad():
        return learner(episodes).softmax(-1)


@every_learner
def test_answers_differ_between_queries(name: str) -> None:
    p = answer(built(name), image_episode(4, 2, 3))
    assert p.shape == (1, 12, 4)
    assert not torch.allclose(p[0, 0], p[0, -1], rtol=1e-3, atol=0)


@every_learner
def test_permuting_labels_permutes_the_answer(name: str) -> None:
    learner, episodes = built(name), image_episode(5, 3, 2)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        answer(learner, renamed(episodes, order))[..., order], answer(learner, episodes)
    )


@unordered_learner
def test_the_order_of_the_support_does_not_matter(name: str) -> None:
    learner, episodes = built(name), image_episode(4, 3, 2)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = answer(learner, in_order(episodes, order))
    torch.testing.assert_close(shuffled, answer(learner, episodes), atol=1e-4, rtol=0)


def test_full_context_sees_the_order_of_the_support() -> None:
    learner, episodes = built("matching_fce"), image_episode(4, 3, 2)
    backwards = answer(learner, in_order(episodes, torch.arange(12).flip(0)))
    assert not torch.allclose(backwards, answer(learner, episodes), atol=1e-6)
    assert (backwards >= 0).all()
    torch.testing.assert_close(backwards.sum(-1), torch.ones(1, 8))


@every_learner
def test_a_padded_batch_equals_one_by_one(name: str) -> None:
    learner = built(name)
    shapes = [(2, 1, 1), (5, 3, 4), (7, 2, 1), (3, 6, 5)]
    alone = [image_episode(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    assert_batch_is_one_by_one(learner, alone, 1e-4)


@pytest.mark.parametrize("name", [n for n in METRIC if n not in draws_pairs])
def test_the_loss_on_padded_episodes_is_the_mean_over_their_queries(name: str) -> None:
    learner = built(name)
    alone = [image_episode(2, 1, 3, seed=1), image_episode(5, 2, 1, seed=2)]
    losses = [learner.loss(episodes).item() for episodes in alone]
    counted = [e.query_labels.numel() * (int(e.ways) if name == "relation" else 1) for e in alone]
    together = learner.loss(stack_episodes(alone)).item()
    assert together == pytest.approx(np.average(losses, weights=counted), rel=1e-4)


@every_learner
def test_padding_does_not_reach_batch_norm_in_training(name: str) -> None:
    episodes = [image_episode(2, 1, 2, seed=1), image_episode(6, 4, 2, seed=2)]
    learner = built(name).train()
    norm = learner.encoder.network[0][1]
    norm.reset_running_stats()
    learner.loss(stack_episodes(episodes))
    images = torch.cat([part[0] for e in episodes for part in (e.support, e.query)])
    with torch.no_grad():
        mean = learner.encoder.network[0][0](learner.encoder.normalise(images)).mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, norm.momentum * mean, atol=1e-5, rtol=1e-4)


@every_learner
@pytest.mark.parametrize(("ways", "shots", "queries"), [(2, 1, 1), (25, 1, 1), (25, 2, 1), (2, 7, 2)])
def test_any_ways_and_shots(name: str, ways: int, shots: int, queries: int) -> None:
    p = answer(built(name), image_episode(ways, shots, queries))
    assert p.shape == (1, ways * queries, ways)
    torch.testing.assert_close(p.sum(-1), torch.ones(1, ways * queries))


@every_learner
def test_a_single_query_is_answered_as_among_others(name: str) -> None:
    learner, episodes = built(name), image_episode(3, 1, 2)
    single = only_first_query(episodes)
    torch.testing.assert_close(answer(learner, single)[0, 0], answer(learner, episodes)[0, 0])


@every_learner
@pytest.mark.parametrize("value", [0, 255])
def test_constant_images_give_equal_classes_and_finite_gradients(name: str, value: int) -> None:
    learner, episodes = built(name), image_episode(4, 2, 1)
    same = of_one_colour(episodes, value)
    p = answer(learner, same)
    if name not in sees_order:
        torch.testing.assert_close(p, torch.full_like(p, 0.25), atol=1e-3, rtol=0)
    assert p.isfinite().all()
    learner.train().loss(same).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())


@every_learner
def test_gradients_reach_every_parameter(name: str) -> None:
    learner = built(name).train()
    learner.loss(stack_episodes([image_episode(3, 2, 2, seed=1), image_episode(5, 1, 1, seed=2)])).backward()
    trained = {n: p.grad for n, p in learner.named_parameters() if p.requires_grad}
    assert [n for n, grad in trained.items() if grad is None or not grad.isfinite().all()] == []
    assert trained["encoder.network.0.0.weight"].abs().sum() > 0


@every_learner
def test_the_loss_falls_when_its_gradient_is_followed(name: str) -> None:
    assert_loss_falls(built(name), image_episode(4, 2, 3))


@every_learner
def test_validation_equals_answering_the_episodes(name: str) -> None:
    assert_validation_equals_answering(built(name))


@every_learner
def test_a_recipe_gives_the_same_learner_again(name: str) -> None:
    recipe = Recipe(learner=name, encoder=TINY)
    first, again = build_learner(recipe).state_dict(), build_learner(recipe).state_dict()
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("name", ["prototypical", "matching_fce", "relation"])
def test_wide_embeddings_and_large_maps_are_taken(name: str) -> None:
    learner = built(name, EncoderSpec(network="resnet12", px=PX, channels=26))
    p = answer(learner, image_episode(2, 1, 1))
    torch.testing.assert_close(p.sum(-1), torch.ones(1, 2))
