"""What every memory-based learner must do, whatever it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from learner_cases import (
    assert_batch_is_one_by_one,
    assert_loss_falls,
    assert_validation_equals_answering,
    image_episode,
    in_order,
    of_one_colour,
    only_first_query,
    renamed,
)
from memory_cases import MAX_WAYS, MEMORY, built

from autometa.core.errors import ConfigError
from autometa.learners.base import EpisodicLearner
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import InputEpisodes, stack_episodes
from autometa.learners.memory.base import Sequences

every_learner = pytest.mark.parametrize("name", MEMORY)


def answer(learner: EpisodicLearner, episodes: InputEpisodes) -> torch.Tensor:
    with torch.no_grad():
        return learner(episodes).softmax(-1)


def read_by(learner: EpisodicLearner, episodes: InputEpisodes, monkeypatch: pytest.MonkeyPatch) -> Sequences:
    """The sequences that a learner in training reads."""
    seen: list[Sequences] = []
    read = learner.read

    def watched(sequences: Sequences) -> torch.Tensor:
        seen.append(sequences)
        return read(sequences)

    monkeypatch.setattr(learner, "read", watched)
    learner.train().loss(episodes)
    return seen[0]


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in MEMORY), ("mann", {"rows": "task"})])
def test_a_padded_batch_equals_one_by_one(name: str, options: dict[str, Any]) -> None:
    shapes = [(2, 1, 1), (5, 3, 4), (7, 2, 1), (3, 6, 5)]
    alone = [image_episode(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    assert_batch_is_one_by_one(built(name, **options), alone, 1e-4)


@every_learner
def test_padding_between_images_changes_nothing(name: str) -> None:
    learner, episodes = built(name), image_episode(3, 2, 2)
    between = replace(
        episodes,
        support=torch.cat([episodes.support[:, :4], episodes.support[:, :3], episodes.support[:, 4:]], 1),
        support_labels=torch.tensor([[0, 0, 1, 1, -1, -1, -1, 2, 2]]),
    )
    torch.testing.assert_close(answer(learner, between), answer(learner, episodes))


@every_learner
def test_a_query_does_not_see_the_others(name: str) -> None:
    learner, episodes = built(name), image_episode(3, 2, 2)
    p = answer(learner, episodes)
    assert not torch.allclose(p[0, 0], p[0, -1], rtol=1e-3, atol=0)
    single = only_first_query(episodes)
    torch.testing.assert_close(answer(learner, single)[0, 0], p[0, 0])
    backwards = replace(episodes, query=episodes.query.flip(1))
    torch.testing.assert_close(answer(learner, backwards).flip(1), p)


@every_learner
def test_renaming_the_classes_renames_the_answer(name: str) -> None:
    learner, episodes = built(name), image_episode(5, 3, 2)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        answer(learner, renamed(episodes, order))[..., order], answer(learner, episodes)
    )


@every_learner
def test_answers_are_deterministic_and_draw_nothing(name: str) -> None:
    learner, episodes = built(name), image_episode(4, 2, 2)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = answer(learner, episodes)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(answer(learner, episodes), first)


@every_learner
def test_the_order_of_the_support_is_seen_and_readings_are_averaged(name: str) -> None:
    learner, episodes = built(name), image_episode(4, 3, 2)
    backwards = answer(learner, in_order(episodes, torch.arange(12).flip(0)))
    assert backwards.isfinite().all()
    torch.testing.assert_close(backwards.sum(-1), torch.ones(1, 8))
    if name in ("mann", "snail"):
        assert not torch.allclose(backwards, answer(learner, episodes), atol=1e-6)
    both = answer(learner, episodes)
    learner.readings = 1
    assert not torch.allclose(both, answer(learner, episodes), atol=1e-6)


@every_learner
@pytest.mark.parametrize(("ways", "shots", "queries"), [(2, 1, 1), (7, 1, 2), (7, 4, 1), (2, 13, 2)])
def test_any_ways_up_to_the_maximum_and_any_shots(name: str, ways: int, shots: int, queries: int) -> None:
    p = answer(built(name), image_episode(ways, shots, queries))
    assert p.shape == (1, ways * queries, ways)
    torch.testing.assert_close(p.sum(-1), torch.ones(1, ways * queries))


@every_learner
def test_more_ways_than_the_maximum_are_refused(name: str) -> None:
    learner = built(name)
    with pytest.raises(ConfigError, match=r"8 classes.*max_ways = 7.*max_ways: 8"):
        learner(image_episode(MAX_WAYS + 1, 1, 1))
    with pytest.raises(ConfigError, match="max_ways"):
        learner.train().loss(image_episode(MAX_WAYS + 1, 1, 1))


@every_learner
def test_in_training_orders_and_slots_are_random(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, episodes = (
        built(name),
        stack_episodes([image_episode(3, 2, 1, seed=seed % 2) for seed in range(40)]),
    )
    torch.manual_seed(0)
    seen = read_by(learner, episodes, monkeypatch)
    assert (seen.labels.sum(1).sum(0) > 0).all()
    assert (seen.labels.sum(1).sort(dim=1).values == torch.tensor([0.0, 0, 0, 0, 2, 2, 2])).all()
    orders = {tuple(labels.flatten().tolist()) for labels in seen.labels}
    assert len(orders) > 30


@every_learner
def test_labels_go_with_their_images(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, episodes = built(name).train(), stack_episodes([image_episode(2, 1, 1), image_episode(4, 3, 1)])
    seen = read_by(learner, episodes, monkeypatch)
    assert seen.real.tolist() == [[False] * 10 + [True] * 2, [True] * 12] * learner.readings
    assert not seen.support[~seen.real].any() and not seen.labels[~seen.real].any()
    given = learner.embed_episodes(episodes)[0].support
    for place in range(2):
        slots: dict[int, int] = {}
        for image, label in zip(seen.support[place], seen.labels[place], strict=True):
            if label.any():
                row = int((given[place] - image).abs().sum(-1).argmin())
                own = int(episodes.support_labels[place, row])
                assert slots.setdefault(own, int(label.argmax())) == int(label.argmax())
        assert len(set(slots.values())) == len(slots)


@every_learner
def test_the_loss_on_padded_episodes_is_the_mean_over_their_queries(name: str) -> None:
    learner = built(name)
    alone = [image_episode(2, 1, 3, seed=1), image_episode(5, 2, 1, seed=2)]
    losses = [learner.loss(episodes).item() for episodes in alone]
    together = learner.loss(stack_episodes(alone)).item()
    assert together == pytest.approx(np.average(losses, weights=[6, 5]), rel=1e-4)


@every_learner
def test_gradients_reach_every_parameter(name: str) -> None:
    learner = built(name).train()
    learner.loss(stack_episodes([image_episode(3, 2, 2, seed=1), image_episode(5, 1, 1, seed=2)])).backward()
    trained = {n: p.grad for n, p in learner.named_parameters() if p.requires_grad}
    assert [n for n, grad in trained.items() if grad is None or not grad.isfinite().all()] == []
    assert [n for n, grad in trained.items() if grad is not None and not grad.any()] == []


@every_learner
@pytest.mark.parametrize("value", [0, 255])
def test_constant_images_give_finite_answers_and_gradients(name: str, value: int) -> None:
    learner, same = built(name), of_one_colour(image_episode(4, 2, 1), value)
    assert answer(learner, same).isfinite().all()
    learner.train().loss(same).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())


@every_learner
def test_the_loss_falls_when_its_gradient_is_followed(name: str) -> None:
    assert_loss_falls(built(name).train(), image_episode(4, 2, 3))


@every_learner
def test_validation_equals_answering_the_episodes(name: str) -> None:
    assert_validation_equals_answering(built(name))


@every_learner
def test_a_wide_embedding_is_seen_through_a_projection(name: str) -> None:
    learner = built(name)
    assert learner.width == learner.encoder.width and not list(learner.reduce.parameters())
    wide = built(name, encoder=EncoderSpec(network="conv4", px=16, channels=130))
    assert (wide.encoder.width, wide.width) == (130, 128)
    assert answer(wide, image_episode(2, 1, 1)).isfinite().all()
