"""What published trainings have: momentum, other schedules of the rate, DropBlock."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from training_cases import rates_of, training_of

from autometa.learners.encoder import EncoderSpec, build_encoder
from autometa.learners.networks import RAMP, DropBlock
from autometa.learners.optimizers import build_optimizer
from autometa.learners.schedule import scale_rate
from autometa.learners.training_settings import TrainingSettings


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1]),
        ({"schedule": "linear"}, [1, 0.75, 0.5, 0]),
        ({"schedule": "cosine"}, [1, 0.8535534, 0.5, 0]),
        ({"schedule": "steps", "drops": (0.25, 0.5)}, [1, 0.1, 0.01, 0.01]),
        ({"schedule": "steps", "drops": (0.2, 0.9), "drop_factors": (0.06, 0.2)}, [1, 0.06, 0.06, 0.012]),
    ],
)
def test_the_rate_goes_by_its_schedule(settings: dict[str, Any], scales: list[float]) -> None:
    found = [scale_rate(TrainingSettings(**settings), done) for done in (0.0, 0.25, 0.5, 1.0)]
    assert found == pytest.approx(scales)


def test_a_training_has_the_rates_of_its_schedule() -> None:
    more: dict[str, Any] = {"max_steps": 4, "validate_every": 4, "repeatable": True, "learning_rate": 0.5}
    training = training_of(schedule="steps", drops=(0.5,), drop_factors=(0.2,), **more)
    assert rates_of(training) == pytest.approx([0.5, 0.5, 0.1, 0.1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 0.9}, "momentum: 0.9 is for optimizer: sgd"),
        ({"optimizer": "sgd", "nesterov": True}, "nesterov needs a momentum"),
        ({"drops": (0.5,)}, "steps, and no other, needs drops"),
        ({"schedule": "steps"}, "steps, and no other, needs drops"),
        (
            {"schedule": "steps", "drops": (0.1, 0.2, 0.3), "drop_factors": (0.1, 0.2)},
            "2 drop_factors for 3 drops",
        ),
        ({"schedule": "steps", "drops": (1.5,)}, "less than 1"),
    ],
)
def test_rates_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingSettings(**settings)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_that_of_pytorch(nesterov: bool) -> None:
    settings = TrainingSettings(
        optimizer="sgd", momentum=0.9, nesterov=nesterov, learning_rate=0.1, weight_decay=0.01
    )
    ends = []
    for build in (
        lambda weight: build_optimizer([{"params": [weight]}], settings),
        lambda weight: torch.optim.SGD([weight], 0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.01),
    ):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = build(weight)
        for _ in range(3):
            optimizer.zero_grad()
            weight.square().sum().backward()
            optimizer.step()
        ends.append(weight.detach())
    assert torch.equal(*ends)


def test_dropblock_takes_squares_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = DropBlock(0.2)
    dropped.batches.fill_(RAMP)
    maps = torch.ones(64, 16, 12, 12)
    found = dropped(maps)
    share = float((found == 0).float().mean())
    assert 0.15 < share < 0.21, "a little less than the rate, where squares lie over each other"
    assert float(found.mean()) == pytest.approx(1.0, abs=1e-5)
    zero = (found == 0).float()
    corners = -F.max_pool2d(-zero, 5, 1)
    assert torch.equal(F.max_pool2d(F.pad(corners, (4,) * 4), 5, 1), zero), (
        "every zero lies in a square of five"
    )


def test_dropblock_rises_over_its_first_batches_and_rests_in_tests() -> None:
    torch.manual_seed(0)
    dropped, maps = DropBlock(0.2), torch.ones(32, 16, 10, 10)
    assert torch.equal(dropped(maps), maps), "almost nothing is dropped by the first batch"
    assert int(dropped.batches) == 1
    dropped.batches.fill_(RAMP)
    assert torch.equal(dropped.eval()(maps), maps) and int(dropped.batches) == RAMP


def test_dropblock_takes_whole_maps_that_are_smaller_than_a_square() -> None:
    torch.manual_seed(0)
    dropped = DropBlock(0.5)
    dropped.batches.fill_(RAMP)
    kept = dropped(torch.ones(40, 10, 2, 2)).flatten(2) != 0
    assert torch.equal(kept.all(-1), kept.any(-1)) and 0.3 < float(kept.float().mean()) < 0.7


@pytest.mark.parametrize("network", ["conv4", "resnet12"])
def test_dropblock_follows_the_last_two_blocks(network: str) -> None:
    spec = EncoderSpec(network=network, px=16, channels=4, drop_block=0.1)
    encoder = build_encoder(spec)
    places = [name for name, module in encoder.named_modules() if isinstance(module, DropBlock)]
    assert places == ["network.2.1", "network.3.1"]
    without = build_encoder(spec.model_copy(update={"drop_block": 0.0}))
    assert encoder.shape == without.shape
    assert not any(isinstance(module, DropBlock) for module in without.modules())
