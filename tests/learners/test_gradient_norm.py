"""Batch norm of learners that adapt: which statistics, and what an answer may depend on."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from gradient_cases import SMALLEST, built
from learner_cases import PX, image_episode, only_first_query

from autometa.learners.encoder import EncoderSpec
from autometa.learners.gradient.base import GradientLearner
from autometa.learners.gradient.norm import NormMode, TaskNorm

LEARNING = ["maml", "proto_maml", "maml_plus_plus", "reptile", "lstm_meta_learner"]


def norm_of(mode: NormMode, steps: int = 3) -> TaskNorm:
    torch.manual_seed(0)
    norm = TaskNorm(4, mode, steps)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


def maps(seed: int, n: int = 5) -> torch.Tensor:
    return 3 * torch.randn(n, 4, 6, 6, generator=torch.Generator().manual_seed(seed)) + 1


def norms_in(learner: GradientLearner) -> list[TaskNorm]:
    return [module for module in learner.modules() if isinstance(module, TaskNorm)]


@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_transductive_is_batch_norm_on_the_images_themselves(recording: bool, training: bool) -> None:
    norm, x = norm_of("transductive").train(training), maps(1)
    norm.recording = recording
    torch.testing.assert_close(norm(x), F.batch_norm(x, None, None, norm.weight, norm.bias, training=True))


def test_support_mode_normalises_the_support_as_batch_norm_does() -> None:
    norm, x = norm_of("support"), maps(1)
    torch.testing.assert_close(
        norm(x), F.batch_norm(x, None, None, norm.weight, norm.bias, training=True), atol=1e-5, rtol=1e-5
    )


def test_support_mode_normalises_queries_with_the_statistics_of_the_support() -> None:
    norm, support, query = norm_of("support"), maps(1), maps(2)
    norm(support)
    norm.recording = False
    mean, variance = support.mean((0, 2, 3)), support.var((0, 2, 3), correction=0)
    expected = F.batch_norm(query, mean, variance, norm.weight, norm.bias)
    torch.testing.assert_close(norm(query), expected, atol=1e-5, rtol=1e-5)


def test_running_statistics_move_at_their_step_only() -> None:
    norm = norm_of("per_step").train()
    norm.step, norm.recording = 2, False
    x = maps(1)
    norm(x)
    for row in range(4):
        moved = row == 2
        mean = 0.1 * x.mean((0, 2, 3)) if moved else torch.zeros(4)
        variance = 0.9 + 0.1 * x.var((0, 2, 3)) if moved else torch.ones(4)
        torch.testing.assert_close(norm.running_mean[row], mean)
        torch.testing.assert_close(norm.running_var[row], variance)


@pytest.mark.parametrize("vectorised", [True, False])
@pytest.mark.parametrize("recording", [True, False])
def test_per_step_transductive_is_batch_norm_with_scale_and_shift_of_the_step(
    recording: bool, vectorised: bool
) -> None:
    norm, x = norm_of("per_step_transductive"), maps(1)
    norm.recording, norm.vectorised = recording, vectorised
    for training in (True, False):
        norm.train(training)
        for step, row in ((0, 0), (2, 2), (7, 3)):
            norm.step = step
            expected = F.batch_norm(x, None, None, norm.weight[row], norm.bias[row], training=True)
            torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)
    assert not list(norm.buffers())


def test_running_statistics_do_not_move_in_evaluation() -> None:
    norm = norm_of("per_step").eval()
    for norm.recording in (True, False):
        norm(maps(1))
    assert not norm.running_mean.any() and bool((norm.running_var == 1).all())


def test_queries_have_the_statistics_scale_and_shift_of_their_step() -> None:
    norm, x = norm_of("per_step").eval(), maps(1)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.recording = False
    for step in range(4):
        norm.step = step
        expected = F.batch_norm(
            x, norm.running_mean[step], norm.running_var[step], norm.weight[step], norm.bias[step]
        )
        torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("mode", ["support", "per_step"])
@pytest.mark.parametrize("name", LEARNING)
def test_an_answer_does_not_depend_on_other_queries(name: str, mode: NormMode) -> None:
    if (name, mode) == ("reptile", "per_step"):
        pytest.skip("reptile has no queries in training that running statistics could come from")
    learner, episodes = built(name, norm=mode, test_steps=3), image_episode(3, 2, 2)
    torch.testing.assert_close(
        learner(only_first_query(episodes))[0, 0], learner(episodes)[0, 0], atol=1e-4, rtol=1e-3
    )


def test_transductive_answers_do_depend_on_other_queries() -> None:
    learner, episodes = built("maml"), image_episode(3, 2, 2)
    alone, among = learner(only_first_query(episodes))[0, 0], learner(episodes)[0, 0]
    assert not torch.allclose(alone, among, rtol=1e-2)


@pytest.mark.parametrize("name", LEARNING)
def test_support_mode_uses_the_support_under_the_adapted_parameters(name: str) -> None:
    learner, episodes = built(name, norm="support", test_steps=2, rate=0.2), image_episode(3, 2, 2)
    among_itself = built(name, norm="transductive", test_steps=2, rate=0.2)
    asked = replace(episodes, query=episodes.support, query_labels=episodes.support_labels)
    torch.testing.assert_close(learner(asked).softmax(-1), among_itself(asked).softmax(-1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["maml", "maml_plus_plus", "proto_maml"])
def test_training_moves_the_running_statistics_of_every_step_that_is_tested(name: str) -> None:
    learner = built(name, norm="per_step", steps=2, test_steps=4).train()
    learner.accumulate(image_episode(3, 2, 2))
    for norm in norms_in(learner):
        used = norm.running_mean[: learner.options.steps + 1]
        assert used[-1].abs().sum() > 0
    learner.eval()
    rows: set[int] = set()
    for norm in norms_in(learner):
        norm.register_forward_pre_hook(lambda m, _: None if m.recording else rows.add(_row(m)))
    learner(image_episode(3, 2, 2))
    trained = {r for r in range(len(norm.running_mean)) if norm.running_mean[r].any()}
    assert rows <= trained


def _row(norm: TaskNorm) -> int:
    return min(norm.step, len(norm.weight) - 1)


@pytest.mark.parametrize("mode", get_args(NormMode))
def test_a_trained_learner_can_be_copied(mode: NormMode) -> None:
    learner = built("maml", norm=mode, tasks="loop", test_steps=2).train()
    learner.accumulate(image_episode(3, 2, 2))
    episodes = image_episode(3, 1, 2, seed=4)
    copied = copy.deepcopy(learner)
    torch.testing.assert_close(copied.eval()(episodes), learner.eval()(episodes))


@pytest.mark.parametrize("mode", get_args(NormMode))
def test_one_pixel_maps_and_a_single_query_are_no_trouble(mode: NormMode) -> None:
    learner = built("maml", SMALLEST.model_copy(update={"px": 8}), norm=mode, test_steps=2)
    episodes = only_first_query(image_episode(2, 1, 1))
    small = replace(episodes, support=episodes.support[..., ::2, ::2], query=episodes.query[..., ::2, ::2])
    assert learner(small).isfinite().all()
    learner.train().accumulate(small)
    assert all(tensor.isfinite().all() for tensor in learner.state_dict().values())


def test_every_batch_norm_of_a_network_from_scratch_is_replaced() -> None:
    resnet = built("maml", EncoderSpec(network="resnet12", px=PX, channels=2), test_steps=1)
    plain = [m for m in resnet.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not plain and len(norms_in(resnet)) == 16
