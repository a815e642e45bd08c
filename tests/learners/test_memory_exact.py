"""MANN against a loop in NumPy, its memory written by hand; SNAIL against its formulas place by place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from memory_cases import MAX_WAYS, built, sequences
from numpy.typing import NDArray

from autometa.core.errors import ConfigError
from autometa.core.settings import validate_settings
from autometa.learners.memory.base import Sequences
from autometa.learners.memory.mann import (
    FULL,
    MANN,
    MANNOptions,
    MemoryNetwork,
    address_by_content,
    mark_least_used,
)
from autometa.learners.memory.snail import SNAIL, AttentionBlock, DenseBlock

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class NumpyMANN:
    """One sequence, one step at a time, row by row."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.p = {name: value.detach().double().numpy() for name, value in network.named_parameters()}
        o = self.o = network.options
        assert isinstance(o.rows, int)
        self.rows = o.rows
        self.memory, self.usage = np.zeros((o.rows, o.row_width)), np.zeros(o.rows)
        self.weights, self.read = np.zeros((o.heads, o.rows)), np.zeros(o.heads * o.row_width)
        self.h = self.c = np.zeros(o.controller)

    def step(self, x: Array) -> None:
        p, o = self.p, self.o
        z = p["controller.weight_ih"] @ np.concatenate([x, self.read]) + p["controller.bias_ih"]
        z = z + p["controller.weight_hh"] @ self.h + p["controller.bias_hh"]
        i, f, g, out = np.split(z, 4)
        self.c = sigmoid(f) * self.c + sigmoid(i) * np.tanh(g)
        self.h = sigmoid(out) * np.tanh(self.c)
        keys = np.tanh(p["keys.weight"] @ self.h + p["keys.bias"]).reshape(o.heads, -1)
        alpha = sigmoid(p["gates.weight"] @ self.h + p["gates.bias"])
        least = np.argsort(self.usage, kind="stable")[: o.heads]
        before = self.memory.copy()
        self.memory[least] = 0
        writes = np.zeros((o.heads, self.rows))
        for head in range(o.heads):
            for row in range(self.rows):
                lru = float(row == least[head] if o.own_rows else row in least)
                writes[head, row] = alpha[head] * self.weights[head, row] + (1 - alpha[head]) * lru
                self.memory[row] += writes[head, row] * keys[head]
        memory = before if o.read == "before" else self.memory
        for head in range(o.heads):
            match = [float(keys[head] @ row) for row in memory]
            lengths = [max(float(np.linalg.norm(row)), FULL) for row in memory]
            cosine = np.array(match) / np.array(lengths) / np.linalg.norm(keys[head])
            e = np.exp(np.exp(p["log_sharpness"][head]) * cosine)
            self.weights[head] = e / e.sum()
        self.usage = o.usage_decay * self.usage + self.weights.sum(0) + writes.sum(0)
        self.read = (self.weights @ memory).ravel()


def network(seed: int = 0, inputs: int = 5, **options: Any) -> MemoryNetwork:
    torch.manual_seed(seed)
    sizes = {"controller": 6, "rows": 7, "row_width": 4, "heads": 2} | options
    made = MemoryNetwork(inputs, MANNOptions(**sizes)).double()
    torch.nn.init.normal_(made.keys.weight)
    return made


@pytest.mark.parametrize("read", ["before", "after"])
@pytest.mark.parametrize(("heads", "own_rows"), [(1, False), (2, False), (3, False), (3, True)])
def test_a_memory_goes_step_by_step_as_a_loop_over_rows(heads: int, own_rows: bool, read: str) -> None:
    net = network(heads=heads, read=read, own_rows=own_rows)
    inputs = torch.randn(3, 9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    state = net.start(torch.full((3,), 9))
    loops = [NumpyMANN(net) for _ in range(3)]
    for t in range(9):
        state = net.step(inputs[:, t], state)
        for place, loop in enumerate(loops):
            loop.step(inputs[place, t].numpy())
            for ours, theirs in (
                (state.memory, loop.memory),
                (state.weights, loop.weights),
                (state.usage, loop.usage),
                (net.output(state), np.concatenate([loop.h, loop.read])),
            ):
                np.testing.assert_allclose(ours[place].detach().numpy(), theirs, rtol=1e-9, atol=1e-12)


def test_the_learner_asks_queries_as_further_steps_of_the_loop() -> None:
    learner = built("mann")
    assert isinstance(learner, MANN)
    given = sequences(2, 6, 3, learner.width)
    with torch.no_grad():
        logits = learner.read(given)
    weight, bias = (p.detach().numpy() for p in (learner.answer.weight, learner.answer.bias))
    labels = given.labels * given.support.shape[-1] ** 0.5  # as long as an image
    inputs = torch.cat([given.support, labels], -1).double().numpy()
    for episode in range(2):
        for query in range(3):
            loop = NumpyMANN(learner.network)
            for x in inputs[episode]:
                loop.step(x)
            loop.step(np.concatenate([given.query[episode, query].double().numpy(), np.zeros(MAX_WAYS)]))
            expected = weight @ np.concatenate([loop.h, loop.read]) + bias
            np.testing.assert_allclose(logits[episode, query].numpy(), expected, rtol=1e-3, atol=1e-4)


def test_a_row_written_by_hand_is_read_back() -> None:
    rows = torch.eye(5)[None] * torch.tensor([3.0, 1.0, 0.5, 2.0, 1.0])[:, None]
    every = torch.ones(1, 5, dtype=torch.bool)
    weights = address_by_content(7 * torch.eye(5)[None, [3, 0]], rows, torch.tensor([60.0, 60.0]), every)
    torch.testing.assert_close(weights @ rows, rows[:, [3, 0]])
    paper = address_by_content(torch.eye(5)[None, [3]], rows, torch.tensor([1.0]), every)
    e = torch.e
    torch.testing.assert_close(paper[0, 0], torch.tensor([1, 1, 1, e, 1]) / (4 + e))


def test_an_empty_row_matches_no_key_and_a_trace_of_one_hardly() -> None:
    rows = torch.zeros(1, 3, 2)
    rows[0, 1] = torch.tensor([1e-4, 0.0])
    rows[0, 2] = torch.tensor([0.0, 1.0])
    every = torch.ones(1, 3, dtype=torch.bool)
    key, sharpness = torch.tensor([[[5.0, 0.0]]]), torch.tensor([10.0])
    weights = address_by_content(key, rows.requires_grad_(), sharpness, every)
    torch.testing.assert_close(weights[0, 0], torch.full((3,), 1 / 3), atol=0.01, rtol=0)
    assert torch.autograd.grad(weights[0, 0, 1], rows)[0].abs().max() < 100


def test_the_least_used_rows_are_the_first_of_equals() -> None:
    usage = torch.tensor([[0.5, 0.0, 0.2, 0.0, 0.1], [0.0, 0.0, 0.0, 0.0, 0.0]])
    marked = mark_least_used(usage, 3)
    assert marked.sum(1).tolist() == [[0, 1, 0, 1, 1], [1, 1, 1, 0, 0]]
    assert marked.sum(2).tolist() == [[1, 1, 1], [1, 1, 1]]
    assert marked.argmax(2)[1].tolist() == [0, 1, 2]


def test_with_closed_gates_keys_go_to_rows_not_used_yet() -> None:
    net = network(heads=1, rows=4)
    torch.nn.init.constant_(net.gates.bias, -50.0)
    torch.nn.init.zeros_(net.gates.weight)
    torch.nn.init.constant_(net.log_sharpness, 5.0)
    state = net.start(torch.tensor([5]))
    for t, x in enumerate(torch.randn(4, 1, 5, dtype=torch.float64)):
        state = net.step(x, state)
        written = state.memory[0].abs().sum(1) > 1e-9
        assert int(written.sum()) == t + 1
    before = state
    state = net.step(torch.randn(1, 5, dtype=torch.float64), state)
    changed = (state.memory - before.memory)[0].abs().sum(1) > 1e-9
    assert changed.nonzero().flatten().tolist() == [int(before.usage[0].argmin())]


def test_rows_of_a_task_hold_every_image_where_a_small_memory_forgets() -> None:
    written = {}
    for rows in ("task", 7):
        net = network(heads=2, rows=rows, own_rows=True)
        torch.nn.init.constant_(net.gates.bias, -50.0)
        torch.nn.init.zeros_(net.gates.weight)
        torch.nn.init.constant_(net.log_sharpness, 5.0)
        state = net.start(torch.tensor([9]))
        for x in torch.randn(8, 1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)):
            state = net.step(x, state)
        written[rows] = int((state.memory[0].abs().sum(1) > 1e-9).sum())
        assert state.memory.shape[1] == (18 if rows == "task" else 7)
    assert written == {"task": 16, 7: 7}


def test_a_memory_of_the_task_is_not_that_of_the_longest_task_of_a_batch() -> None:
    net = network(rows="task", heads=2)
    inputs = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    both, alone = net.start(torch.tensor([6, 3])), net.start(torch.tensor([3]))
    for t in range(3):
        both, alone = net.step(inputs[:, t], both), net.step(inputs[1:, t], alone)
        assert both.memory.shape[1] == 12 and alone.memory.shape[1] == 6
        torch.testing.assert_close(both.memory[1, :6], alone.memory[0])
        torch.testing.assert_close(net.output(both)[1], net.output(alone)[0])
        assert not both.memory[1, 6:].any() and not both.weights[1, :, 6:].any()


@pytest.mark.parametrize("rows", [0, "tasks"])
def test_rows_are_a_number_or_those_of_the_task(rows: int | str) -> None:
    with pytest.raises(ConfigError, match=f"options of mann: rows.*{rows}"):
        validate_settings(MANNOptions, {"rows": rows}, "options of mann")


def test_more_heads_than_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"4 heads.*rows"):
        validate_settings(MANNOptions, {"rows": 3}, "options of mann")


def padded_in_front(given: Sequences, n: int) -> Sequences:
    def pad(part: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(part, (0, 0, n, 0))

    real = torch.nn.functional.pad(given.real, (n, 0))
    return Sequences(pad(given.support), pad(given.labels), real, given.query)


@pytest.mark.parametrize("name", ["mann", "snail"])
def test_padding_in_front_leaves_no_trace(name: str) -> None:
    learner = built(name)
    given = sequences(2, 5, 3, learner.width)
    with torch.no_grad():
        torch.testing.assert_close(learner.read(padded_in_front(given, 4)), learner.read(given))


def test_snail_is_causal() -> None:
    """Neither queries nor later images and labels are seen at a place of the support."""
    learner = built("snail")
    assert isinstance(learner, SNAIL)
    given = sequences(1, 9, 2, learner.width)
    with torch.no_grad():
        support, query = learner.run(given)
        for t in range(9):
            later = replace(given, support=given.support.clone(), labels=given.labels.clone())
            later.support[:, t:] += 1.0
            changed = learner.run(later)[0]
            torch.testing.assert_close(changed[:, :t], support[:, :t])
            assert not torch.allclose(changed[:, t], support[:, t])
            later = replace(given, labels=given.labels.clone())
            later.labels[:, t:] = later.labels[:, t:].roll(1, -1)
            torch.testing.assert_close(learner.run(later)[0][:, :t], support[:, :t])
        other = learner.run(replace(given, query=given.query.flip(1)))
        torch.testing.assert_close(other[0], support)
        torch.testing.assert_close(other[1].flip(1), query)


def test_a_query_stands_where_a_further_image_without_label_would() -> None:
    learner = built("snail")
    given = sequences(2, 6, 1, learner.width)
    longer = Sequences(
        torch.cat([given.support, given.query], 1),
        torch.nn.functional.pad(given.labels, (0, 0, 0, 1)),
        torch.ones(2, 7, dtype=torch.bool),
        given.query,
    )
    with torch.no_grad():
        torch.testing.assert_close(learner.run(longer)[0][:, -1:], learner.run(given)[1])


@pytest.mark.parametrize("dilation", [1, 2, 4, 8])
def test_a_dense_block_is_a_gated_dilated_convolution(dilation: int) -> None:
    torch.manual_seed(0)
    block = DenseBlock(3, 2, dilation)
    x = torch.randn(1, 7, 3)
    with torch.no_grad():
        support, query = block(x[:, :6], x[:, 6:], torch.ones(1, 6, dtype=torch.bool))
        kernel = torch.stack([block.before.weight, block.now.weight], dim=-1)
        inputs = torch.nn.functional.pad(x.transpose(1, 2), (dilation, 0))
        both = torch.nn.functional.conv1d(inputs, kernel, block.now.bias, dilation=dilation)
    expected = torch.cat([x, (both[:, :2].tanh() * both[:, 2:].sigmoid()).transpose(1, 2)], -1)
    torch.testing.assert_close(torch.cat([support, query], 1), expected)


def test_an_attention_block_attends_to_itself_and_the_past() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(3, 4, 2)
    x = torch.randn(1, 6, 3)
    with torch.no_grad():
        support, query = block(x[:, :5], x[:, 5:], torch.ones(1, 5, dtype=torch.bool))
        found = torch.cat([support, query], 1)[0]
        for t in range(6):
            keys, values = block.key(x[0, : t + 1]), block.value(x[0, : t + 1])
            weights = (keys @ block.ask(x[0, t]) / 2).softmax(0)
            torch.testing.assert_close(found[t], torch.cat([x[0, t], weights @ values]))


@pytest.mark.parametrize("read", ["before", "after"])
def test_asking_is_a_step_on_a_copy_of_the_state(read: str) -> None:
    made = network(read=read)
    generator = torch.Generator().manual_seed(1)
    state = made.start(torch.tensor([5, 3]))
    for _ in range(3):
        state = made.step(torch.randn(2, 5, generator=generator, dtype=torch.float64), state)
    asked = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    stepped = made.output(made.step(asked.flatten(0, 1), state.copies(4))).unflatten(0, (2, 4))
    torch.testing.assert_close(made.ask(asked, state), stepped, rtol=1e-9, atol=1e-9)
