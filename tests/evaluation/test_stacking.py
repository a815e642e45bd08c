"""Ensemblers: how the answers of several members become one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from synthetic import colour_pool

from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.evaluation.stacking import STACKINGS, Stacking, fit_linear, fit_naive_bayes
from autometa.evaluation.validation_episodes import ValidationEpisodes

EPISODES = ValidationEpisodes(
    sample_episodes(
        colour_pool(classes=12), np.arange(12), EpisodeSpec((2, 5), (1, 2), 4), 30, np.random.default_rng(0)
    )
)


def member(seed: int, help_: float) -> list[torch.Tensor]:
    """Log-probabilities of a member whose logits are noise, with so much more for the label."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for batch in EPISODES.batches:
        ways = int(batch.ways.max())
        noise = torch.randn(*batch.query_labels.shape, ways, generator=generator, dtype=torch.float64)
        logits = noise + help_ * F.one_hot(batch.query_labels.clamp(min=0), ways)
        absent = torch.arange(ways) >= batch.ways[:, None, None]
        found.append(logits.masked_fill(absent, -torch.inf).log_softmax(-1))
    return found


@pytest.mark.parametrize("rule", STACKINGS)
def test_a_rule_gives_probabilities_of_the_classes_that_there_are_in_any_order(rule: str) -> None:
    members = member(0, 2.0), member(1, 1.0)
    stacking = STACKINGS[rule](members, EPISODES)
    assert stacking.rule == rule and len(stacking.numbers) == 2
    assert Stacking.model_validate_json(stacking.model_dump_json()) == stacking
    for answers, batch in zip(stacking.of_batches(members), EPISODES.batches, strict=True):
        absent = torch.arange(answers.shape[-1]) >= batch.ways[:, None, None]
        assert (answers.isneginf() == absent.expand_as(answers)).all()
        torch.testing.assert_close(answers.exp().sum(-1), torch.ones_like(answers[..., 0]))
    first = [one[0][..., :2].log_softmax(-1) for one in members]
    turned = stacking([one.flip(-1) for one in first]).flip(-1)
    torch.testing.assert_close(turned, stacking(first))


@pytest.mark.parametrize("rule", STACKINGS)
def test_two_members_that_are_right_elsewhere_are_better_together(rule: str) -> None:
    members = member(0, 1.5), member(1, 1.5)
    together = EPISODES.measure(STACKINGS[rule](members, EPISODES).of_batches(members)).mean
    assert together > max(EPISODES.measure(one).mean for one in members) + 0.02


def test_linear_weights_are_those_of_logistic_regression_on_the_probabilities() -> None:
    members = member(0, 2.0), member(1, 0.5)
    found = np.array(fit_linear(members, EPISODES).numbers)[:, 0]
    weights = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = 0.5 * weights.square().sum()
        for *of_batch, labels in zip(*members, EPISODES.labels, strict=True):
            logits = sum(w * p.exp() for w, p in zip(weights, of_batch, strict=True))
            logits = logits.masked_fill(of_batch[0].isneginf(), -1e30)
            total = total + F.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="sum"
            )
        total.backward()
        return total

    optimizer.step(loss)
    np.testing.assert_allclose(found, weights.detach().numpy(), rtol=1e-3)
    assert found[0] > found[1]


def test_naive_bayes_knows_what_a_member_gives_the_label_and_other_classes() -> None:
    ((right, variance, wrong, other_variance),) = fit_naive_bayes([member(0, 3.0)], EPISODES).numbers
    labels = [batch.query_labels for batch in EPISODES.batches]
    rows = [
        (p, y) for p, own in zip(member(0, 3.0), labels, strict=True) for p, y in zip(p, own, strict=True)
    ]
    given = torch.cat([p[y >= 0].gather(1, y[y >= 0][:, None])[:, 0].exp() for p, y in rows])
    assert right == pytest.approx(float(given.mean()))
    assert variance == pytest.approx(float(given.var(correction=0)))
    assert wrong < right and other_variance >= 1e-3
    alike = Stacking(rule="naive_bayes", numbers=((0.8, 0.01, 0.1, 0.01), (0.8, 0.01, 0.1, 0.01)))
    p = torch.tensor([[0.7, 0.3], [0.2, 0.8]]).log()
    assert alike([p, p]).argmax(-1).tolist() == [0, 1]


def test_an_ensemble_without_members_is_refused() -> None:
    with pytest.raises(ValidationError):
        Stacking(rule="linear", numbers=())
