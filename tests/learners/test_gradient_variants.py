"""What each optimisation-based learner does differently from MAML."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gradient_cases import SMALLEST, built, first_layer, gradients_of, only_task
from learner_cases import image_episode

from autometa.core.errors import ConfigError
from autometa.learners.gradient.base import BODY, GradientLearner
from autometa.learners.gradient.inner_loop import Params
from autometa.learners.gradient.lstm_meta_learner import (
    Gates,
    LSTMMetaLearner,
    preprocess_gradient,
)
from autometa.learners.gradient.maml_plus_plus import MAMLPlusPlus
from autometa.learners.gradient.norm import TaskNorm
from autometa.learners.recipe import Recipe, build_learner


def moved(name: str, **options: Any) -> set[str]:
    """Names of the parameters that three inner steps change."""
    path = built(name, **options).adapt(only_task(), 3)
    return {n for n in path[0] if not torch.equal(path[0][n], path[-1][n])}


def is_body(name: str) -> bool:
    return name.startswith(BODY)


def test_maml_moves_everything() -> None:
    assert moved("maml") == set(built("maml").initial(only_task()))


def test_anil_moves_the_head_only() -> None:
    assert moved("anil") == {"head.weight", "head.bias"}


def test_anil_still_learns_its_body_from_the_query() -> None:
    learner = built("anil")
    gradients = gradients_of(learner, image_episode(3, 2, 2))
    assert gradients[first_layer(learner)].abs().sum() > 0


def test_boil_moves_the_whole_body_only() -> None:
    names = built("boil").initial(only_task())
    assert moved("boil") == {n for n in names if is_body(n)}


def test_cavia_moves_the_context_only() -> None:
    assert moved("cavia") == {"context"}


def test_cavia_starts_from_no_context() -> None:
    learner: Any = built("cavia_class")
    start = learner.initial(only_task(ways=4))["context"]
    assert start.shape == (4, learner.options.context) and not start.any()


def test_rates_of_meta_sgd_learn() -> None:
    gradients = gradients_of(built("meta_sgd"), image_episode(3, 2, 2))
    rates = {n: g for n, g in gradients.items() if n.startswith("rates.")}
    assert len(rates) == len(gradients) - len(rates) + 1  # those of the head's bias, which is no parameter
    assert all(g.abs().sum() > 0 for n, g in rates.items())


def test_a_zero_rate_of_meta_sgd_freezes_its_parameter() -> None:
    learner = built("meta_sgd")
    frozen = first_layer(learner)
    with torch.no_grad():
        learner.rates[frozen.replace(".", "-")].zero_()
    path = learner.adapt(only_task(), 3)
    assert {n for n in path[0] if torch.equal(path[0][n], path[-1][n])} == {frozen}


def test_a_negative_rate_of_meta_sgd_climbs() -> None:
    learner, task = built("meta_sgd"), only_task()
    down = learner.adapt(task, 1)
    with torch.no_grad():
        for rate in learner.rates.values():
            rate.neg_()
    up = learner.adapt(task, 1)
    for name, start in down[0].items():
        torch.testing.assert_close(up[1][name] - start, start - down[1][name])


def plus_plus(**options: Any) -> MAMLPlusPlus:
    learner = built("maml_plus_plus", **{"steps": 3, **options})
    assert isinstance(learner, MAMLPlusPlus)
    return learner


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.15, 0.5, 1.0])
def test_step_weights_sum_to_one(share: float) -> None:
    learner = plus_plus()
    learner.share_done = share
    assert float(learner.step_weights().sum()) == pytest.approx(1)
    assert (learner.step_weights() >= 0).all()


def test_step_weights_move_from_all_steps_to_the_last() -> None:
    learner, last = plus_plus(multi_step_share=0.1), []
    torch.testing.assert_close(learner.step_weights(), torch.full((3,), 1 / 3))
    for hundredths in range(11):
        learner.share_done = hundredths / 100
        last.append(float(learner.step_weights()[-1]))
    assert last == sorted(last)
    torch.testing.assert_close(learner.step_weights(), torch.tensor([0.0, 0.0, 1.0]))


def test_a_learner_of_an_earlier_version_counted_its_meta_batches() -> None:
    learner = plus_plus()
    learner.load_state_dict({**learner.state_dict(), "batches": torch.tensor(2.0)})
    with pytest.raises(RuntimeError, match="Unexpected"):
        learner.load_state_dict({**learner.state_dict(), "others": torch.tensor(2.0)})


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_maml_plus_plus_turns_second_order_after_a_share_of_its_training(share: float) -> None:
    learner = plus_plus(first_order_share=share).train()
    order = []
    for learner.share_done in (0.0, 0.24, 0.26, 0.5, 0.75):
        order.append(learner.first_order)
    assert order == [done < share for done in (0.0, 0.24, 0.26, 0.5, 0.75)]
    assert learner.eval().first_order


@pytest.mark.parametrize("adapt_norm", [False, True])
def test_maml_plus_plus_adapts_norms_where_it_is_asked_to(adapt_norm: bool) -> None:
    learner, task = plus_plus(adapt_norm=adapt_norm), only_task()
    path = learner.adapt(task, 2)  # a first step moves the head alone
    modules = [name for name, module in learner.encoder.named_modules() if isinstance(module, TaskNorm)]
    norms = {f"encoder.{module}.{part}" for module in modules for part in ("weight", "bias")}
    moved = {name for name in path[0] if not torch.equal(path[0][name], path[2][name])}
    assert norms and norms & moved == (norms if adapt_norm else set())
    assert moved >= {"head.weight", "head.bias"}


def test_second_order_changes_the_gradients_of_maml_plus_plus() -> None:
    first, second = (
        gradients_of(plus_plus(first_order_share=share, norm="transductive"), image_episode(3, 2, 2))
        for share in (1.0, 0.0)
    )
    name = first_layer(plus_plus(norm="transductive"))
    assert not torch.allclose(first[name], second[name])
    assert second["rates"].abs().sum() > 0


def test_rates_of_maml_plus_plus_are_per_layer_and_step_and_those_after_the_last_are_its() -> None:
    learner = plus_plus()
    with torch.no_grad():
        learner.rates.copy_(torch.arange(learner.rates.numel()).view_as(learner.rates))
    names = list(learner.initial(only_task()))
    assert [learner.rate(n, 0).item() for n in names] == [3.0 * i for i in range(len(names))]
    assert [learner.rate(names[0], step).item() for step in range(5)] == [0, 1, 2, 2, 2]


def test_proto_maml_without_steps_is_a_prototypical_network() -> None:
    learner, episodes = built("proto_maml", test_steps=0), image_episode(4, 3, 2)
    params: dict[str, torch.Tensor] = {n: p for n, p in learner.named_parameters() if is_body(n)}
    support, query = (
        learner.features(params, images[0], 0, recording=True).detach()
        for images in (episodes.support, episodes.query)
    )
    means = torch.stack([support[episodes.support_labels[0] == c].mean(0) for c in range(4)])
    expected = (-torch.cdist(query, means).square()).softmax(-1)
    torch.testing.assert_close(learner(episodes).softmax(-1)[0], expected, atol=1e-4, rtol=1e-3)


def test_the_head_of_proto_maml_passes_gradients_to_the_body() -> None:
    head = built("proto_maml").train().initial(only_task())
    assert head["head.weight"].requires_grad and head["head.bias"].requires_grad


def learned_optimizer() -> LSTMMetaLearner:
    learner = built("lstm_meta_learner", rate=0.05)
    assert isinstance(learner, LSTMMetaLearner)
    return learner


def descended(learner: GradientLearner, steps: int, rate: float) -> list[Params]:
    """Plain gradient descent from the learner's start."""
    task = only_task()
    path = [{n: p.detach() for n, p in learner.initial(task).items()}]
    for step in range(steps):
        current = {n: p.clone().requires_grad_() for n, p in path[-1].items()}
        logits = learner.logits(current, task.support, step, recording=True)
        gradients = torch.autograd.grad(F.cross_entropy(logits, task.support_labels), list(current.values()))
        path.append({n: p.detach() - rate * g for (n, p), g in zip(current.items(), gradients, strict=True)})
    return path


@pytest.mark.parametrize("how", ["gates", "weights"])
def test_the_learned_optimizer_can_be_gradient_descent(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learned_optimizer()
    if how == "gates":

        def gates(gradient: torch.Tensor, *_: object) -> Gates:
            return Gates(torch.ones_like(gradient), torch.full_like(gradient, 0.05))

        monkeypatch.setattr(learner, "gates", gates)
    with torch.no_grad():
        learner.forget.bias.fill_(40.0)  # a sigmoid of one
        learner.forget.weight.zero_()
        learner.input.weight.zero_()
    path = learner.adapt(only_task(), 4)
    for ours, plain in zip(path, descended(learner, 4, 0.05), strict=True):
        for name in plain:
            torch.testing.assert_close(ours[name], plain[name], atol=1e-5, rtol=1e-4)


def test_the_learned_optimizer_starts_near_gradient_descent() -> None:
    recipe = Recipe(learner="lstm_meta_learner", encoder=SMALLEST, options={"rate": 0.05})
    gradient = torch.randn(7)
    learner = build_learner(recipe)
    gates = learner.gates(gradient, torch.tensor(1.0), torch.randn(7), None)
    forget, write = gates.forget, gates.write
    torch.testing.assert_close(forget, torch.ones(7), atol=1e-3, rtol=0)
    torch.testing.assert_close(write, torch.full((7,), 0.05))


def test_preprocessing_by_hand() -> None:
    given = torch.tensor([1.0, -math.exp(-5), math.exp(3), math.exp(-11), -math.exp(-12), 0.0])
    size, sign = preprocess_gradient(given)
    torch.testing.assert_close(size, torch.tensor([0.0, -0.5, 0.3, -1.0, -1.0, -1.0]))
    torch.testing.assert_close(sign, torch.tensor([1.0, -1.0, 1.0, math.exp(-1), -math.exp(-2), 0.0]))


def test_gates_see_their_own_last_value() -> None:
    learner, zeros = learned_optimizer(), torch.zeros(3)
    with torch.no_grad():
        learner.forget.weight[0, -1], learner.input.weight[0, -1] = 2.0, -2.0
    once = learner.gates(zeros, torch.tensor(1.0), zeros, Gates(zeros, zeros))
    again = learner.gates(zeros, torch.tensor(1.0), zeros, Gates(zeros + 1, zeros + 1))
    assert (again.forget > once.forget).all() and (again.write < once.write).all()


def test_gates_and_the_start_learn_from_the_query() -> None:
    learner = learned_optimizer()
    gradients = gradients_of(learner, image_episode(3, 2, 2))
    for name in ("forget.weight", "forget.bias", "input.weight", "input.bias", "start_weight"):
        assert gradients[name].abs().sum() > 0, name
    assert gradients[first_layer(learner)].abs().sum() > 0


def test_gates_see_a_first_lstm_with_a_state_for_each_coordinate() -> None:
    learner = built("lstm_meta_learner", hidden=5)
    assert isinstance(learner, LSTMMetaLearner) and learner.first is not None
    generator = torch.Generator().manual_seed(0)
    value, last = torch.randn(2, 3, generator=generator), None
    states = {place: (torch.zeros(1, 5), torch.zeros(1, 5)) for place in range(6)}
    before = [torch.ones(6), torch.full((6,), learner.options.rate)]
    for _ in range(3):
        gradient, loss = torch.randn(2, 3, generator=generator), torch.rand((), generator=generator)
        found = learner.gates(gradient, loss, value, last)
        for place in range(6):
            sizes = [*preprocess_gradient(gradient.flatten()[place]), *preprocess_gradient(loss)]
            states[place] = learner.first(torch.stack(sizes)[None], states[place])
            for gate, name, earlier in zip(
                (learner.forget, learner.input), ("forget", "write"), before, strict=True
            ):
                seen = torch.cat([states[place][0][0], torch.stack([value.flatten()[place], earlier[place]])])
                expected = gate(seen).sigmoid()
                torch.testing.assert_close(getattr(found, name).flatten()[place], expected[0])
        before, last = [found.forget.flatten(), found.write.flatten()], found


def test_modes_that_the_lstm_meta_learner_does_not_have_are_refused() -> None:
    for refused in ({"tasks": "vmap"}, {"tasks": "graph"}, {"task_memory": 2.0}):
        with pytest.raises(ConfigError, match=next(iter(refused))):
            build_learner(Recipe(learner="lstm_meta_learner", encoder=SMALLEST, options=refused))


def test_with_a_first_lstm_gates_start_as_the_options_say() -> None:
    options = {"hidden": 20, "kept": 0.989, "rate": 0.011}
    learner = build_learner(Recipe(learner="lstm_meta_learner", encoder=SMALLEST, options=options))
    assert isinstance(learner, LSTMMetaLearner)
    assert 4 < learner.forget.bias.item() < 5 and -5 < learner.input.bias.item() < -4  # as in the paper
    gates = learner.gates(torch.randn(7), torch.tensor(1.0), torch.randn(7), None)
    torch.testing.assert_close(gates.forget, torch.full((7,), 0.989))
    torch.testing.assert_close(gates.write, torch.full((7,), 0.011))
    learner.train().accumulate(image_episode(3, 2, 2))
    assert learner.forget.weight.grad is not None and learner.forget.weight.grad.abs().max() > 0
