"""Meta networks: shapes of fast weights, gradients by hand, and what reaches which weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from learner_cases import image_episode
from memory_cases import MAX_WAYS, built, sequences

from autometa.learners.episodes import stack_episodes
from autometa.learners.memory.meta_networks import (
    FastEmbedding,
    MetaNetworks,
    embedding_gradients,
    verification,
)

GROUPS = {
    "theta": ("first", "second"),
    "phi": ("base", "answer"),
    "w": ("fast_embedding",),
    "v": ("fast_base",),
}


def tiny() -> MetaNetworks:
    learner = built("meta_networks")
    assert isinstance(learner, MetaNetworks)
    return learner


def test_fast_weights_have_the_shapes_of_slow_ones() -> None:
    learner = tiny()
    given = sequences(3, 5, 2, learner.width)
    first, second = learner.fast_weights(given)
    assert first.shape == (3, *learner.first.weight.shape)
    assert second.shape == (3, *learner.second.weight.shape)
    assert learner.values(given).shape == (3, 5, *learner.answer.weight.shape)
    assert not torch.allclose(first[0], first[1])


@pytest.mark.parametrize("group", GROUPS)
def test_the_query_loss_trains_all_four_groups(group: str) -> None:
    learner = tiny().train()
    learner.loss(stack_episodes([image_episode(3, 2, 2, seed=1), image_episode(5, 1, 1, seed=2)])).backward()
    for name, parameter in learner.named_parameters():
        if name.split(".")[0] in GROUPS[group]:
            assert parameter.grad is not None and parameter.grad.abs().max() > 1e-9, name


def test_every_weight_is_of_one_group_or_the_encoder() -> None:
    grouped = {part for group in GROUPS.values() for part in group}
    others = {name.split(".")[0] for name, _ in tiny().named_parameters()} - grouped
    assert others == {"encoder", "log_sharpness"}


def test_no_gradient_goes_through_gradients() -> None:
    """The fast weights of a task change neither slow weights nor the encoder."""
    learner = tiny()
    given = sequences(2, 4, 1, learner.width)
    given.support.requires_grad_()
    fast = [*learner.fast_weights(given), learner.values(given)]
    total = sum(part.sum() for part in fast)
    assert isinstance(total, torch.Tensor)
    total.backward()
    assert given.support.grad is None
    reached = {name.split(".")[0] for name, p in learner.named_parameters() if p.grad is not None}
    assert reached == {"fast_embedding", "fast_base"}


def test_values_come_from_the_gradient_of_each_images_own_loss() -> None:
    learner = tiny()
    given = sequences(1, 4, 1, learner.width, ways=MAX_WAYS)
    used = given.labels[0].any(0)
    for i in range(4):
        logits = learner.answer(learner.seen(given.support[0, i])).masked_fill(~used, float("-inf"))
        loss = F.cross_entropy(logits[None], given.labels[0, i].argmax()[None])
        (gradient,) = torch.autograd.grad(loss, [learner.answer.weight])
        torch.testing.assert_close(learner.values(given)[0, i], learner.fast_base(gradient))


def test_embedding_gradients_are_those_of_one_episode_at_a_time() -> None:
    learner = tiny()
    given = sequences(2, 5, 1, learner.width, ways=3)
    slow = (learner.first.weight.detach(), learner.second.weight.detach())
    found = embedding_gradients(given, slow, 3)
    for episode in range(2):
        for place in range(3):
            weights = [part.clone().requires_grad_() for part in slow]
            r = F.normalize((given.support[episode] @ weights[0].T).relu() @ weights[1].T, dim=-1)
            anchor = place + 2
            losses = []
            for other in set(range(5)) - {anchor}:
                same = (given.labels[episode, anchor] == given.labels[episode, other]).all()
                p = torch.sigmoid(10 * (r[anchor] @ r[other] - 0.5))
                losses.append(-(p if same else 1 - p).log())
            expected = torch.autograd.grad(torch.stack(losses).mean(), weights)
            for ours, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(ours[episode, place], theirs, atol=1e-6, rtol=1e-4)


def test_the_verification_loss_is_small_where_classes_are_apart() -> None:
    labels = torch.eye(2)[None, [0, 0, 1, 1]]
    real = torch.ones(1, 4, dtype=torch.bool)
    apart = verification(labels * 3, labels, real)
    mixed = verification(labels[:, [0, 2, 1, 3]] * 3, labels, real)
    assert (apart < 0.01).all() and (mixed > 3).all()
    alone = verification(labels * 3, labels, torch.tensor([[False, False, False, True]]))
    assert not alone.any()


def test_missing_gradients_leave_the_lstm_as_it_was() -> None:
    torch.manual_seed(0)
    network, gradients = FastEmbedding(4), torch.randn(2, 3, 2, 2)
    fast = network(gradients, torch.tensor([[False, True, True], [True, True, True]]))
    torch.testing.assert_close(fast[:1], network(gradients[:1, 1:], torch.ones(1, 2, dtype=torch.bool)))
    assert not torch.allclose(fast[1:], network(gradients[1:, 1:], torch.ones(1, 2, dtype=torch.bool)))


def test_with_empty_fast_weights_the_slow_network_answers() -> None:
    learner = tiny()
    with torch.no_grad():
        learner.fast_base.network[2].weight.zero_()
    given = sequences(2, 4, 3, learner.width)
    torch.testing.assert_close(learner.read(given), learner.answer(learner.seen(given.query)))


def test_layer_augmentation_adds_slow_and_fast_after_the_activation() -> None:
    learner = tiny()
    given = sequences(1, 4, 1, learner.width)
    first, second = learner.fast_weights(given)
    x = given.support[0, 0]
    hidden = F.relu(learner.first.weight @ x) + F.relu(first[0] @ x)
    expected = learner.second.weight @ hidden + second[0] @ hidden
    torch.testing.assert_close(learner.embedding(given.support, (first, second))[0, 0], expected)
