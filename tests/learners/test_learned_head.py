"""A head that is learned for a number of ways, as the papers of MAML have it, and those for any number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradient_cases import built, gradients_of, only_task
from learner_cases import image_episode

from autometa.core.errors import ConfigError, DataError

NAMES = ["maml", "fomaml", "anil", "reptile", "meta_sgd", "maml_plus_plus"]


@pytest.mark.parametrize("name", NAMES)
def test_every_class_of_a_learned_head_starts_from_numbers_of_its_own(name: str) -> None:
    learner = built(name, head="learned", ways=3, tasks="loop")
    start = learner.initial(only_task(3))
    assert torch.equal(start["head.weight"], learner.start_head.weight)
    assert torch.equal(start["head.bias"], learner.start_head.bias)
    gradients = gradients_of(learner, image_episode(3, 2, 2))
    assert gradients["start_head.weight"].shape == learner.start_head.weight.shape
    rows = gradients["start_head.weight"]
    assert not torch.allclose(rows[0], rows[1]) and gradients["start_head.bias"].abs().max() > 0


def test_a_first_step_moves_the_body_under_a_learned_head_and_not_under_a_shared_one() -> None:
    body = {}
    for head, ways in (("learned", 3), ("shared", None), ("zero", None)):
        before, after = built("maml", head=head, ways=ways).adapt(only_task(3), 1)
        moved = [(after[n] - before[n]).abs().max().item() for n in before if n.startswith("encoder.")]
        body[head] = max(moved)
    assert body["learned"] > 1e-4 and body["shared"] < 1e-6 and body["zero"] == 0.0


@pytest.mark.parametrize("steps", [1, 3])
def test_under_a_softmax_a_shared_start_answers_as_zero_does(steps: int) -> None:
    episodes = image_episode(4, 2, 3)
    shared, zero = (built("maml", head=head, test_steps=steps) for head in ("shared", "zero"))
    assert shared.start_weight.abs().max() > 0
    zero.load_state_dict({n: t for n, t in shared.state_dict().items() if n != "start_weight"})
    torch.testing.assert_close(shared(episodes).softmax(-1), zero(episodes).softmax(-1), atol=1e-5, rtol=1e-4)


def test_tasks_of_another_number_of_ways_are_refused() -> None:
    learner = built("maml", head="learned", ways=3)
    with pytest.raises(DataError, match="a task of 4 classes, but the head was made for ways: 3"):
        learner(image_episode(4, 2, 2))


@pytest.mark.parametrize("options", [{"head": "learned"}, {"head": "zero", "ways": 5}, {"ways": 5}])
def test_a_learned_head_and_no_other_needs_ways(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a learned head, and no other, needs ways"):
        built("maml", **options)
