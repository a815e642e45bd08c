"""The pretended GPU refuses what a real one refuses, and computes what the CPU does."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pretend_gpu import Card
from torch import nn


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def test_tensors_go_there_and_back(gpu: Card) -> None:
    here = torch.rand(3, 4)
    there = here.to("cuda")
    assert there.is_cuda and str(there.device) == "cuda:0" and there.get_device() == 0
    assert not here.is_cuda and here.device.type == "cpu"
    assert there.to("cuda") is there and here.cpu() is here
    assert torch.equal(there.cpu(), here) and there.cpu().numpy().shape == (3, 4)
    assert there[1:].is_cuda and torch.zeros_like(there).is_cuda and here.to(there).is_cuda
    assert torch.ones(2, device=there.device).is_cuda and torch.as_tensor(np.ones(2), device="cuda").is_cuda
    assert here.to("meta").device.type == "meta"
    assert gpu.operations > 0 and not gpu.refused


def test_devices_are_not_mixed(gpu: Card) -> None:
    here = torch.rand(3, 4)
    there = here.cuda()
    for wrong in (
        lambda: here + there,
        lambda: torch.cat([here, there]),
        lambda: here[torch.tensor([0]).cuda()],
    ):
        with pytest.raises(RuntimeError, match="same device"):
            wrong()
    for asks in (there.numpy, lambda: np.asarray(there)):
        with pytest.raises(TypeError, match="numpy"):
            asks()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(2, device="cuda", generator=torch.Generator())
    assert len(gpu.refused) == 6
    assert (there + torch.tensor(1.0)).is_cuda and there[torch.tensor([0])].is_cuda
    here.copy_(there)
    assert not here.is_cuda


@pytest.mark.usefixtures("gpu")
def test_networks_are_trained_there() -> None:
    torch.manual_seed(0)
    here = network()
    there, images = copy.deepcopy(here).to("cuda"), torch.rand(2, 3, 8, 8)
    assert all(tensor.is_cuda for tensor in there.state_dict().values())
    with pytest.raises(RuntimeError, match="same device"):
        there(images)
    for model, batch in ((here, images), (there, images.cuda())):
        optimizer = torch.optim.Adam(model.parameters())
        model(batch).square().sum().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.is_cuda for p in there.parameters())
    for one, other in zip(here.parameters(), there.cpu().parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("gpu")
def test_gradients_and_vmap_see_the_device() -> None:
    there = torch.rand(3, 4).cuda()
    assert torch.func.vmap(lambda row: row @ torch.eye(4, device=row.device))(there).is_cuda
    with pytest.raises(RuntimeError, match="same device"):
        torch.func.vmap(lambda row: row @ torch.eye(4))(there)
    assert torch.func.grad(lambda values: (values * values).sum())(there).is_cuda
    model = network().cuda()
    loss = model(torch.rand(2, 3, 8, 8, device="cuda")).sum()
    assert all(
        each.is_cuda for each in torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    )


def test_memory_is_counted_and_can_run_out(gpu: Card) -> None:
    there = torch.zeros(1000, device="cuda")
    assert gpu.now_bytes == torch.cuda.memory_allocated() == 4000
    other = there * 2
    assert gpu.now_bytes == 8000 and there[:10].is_cuda
    del other
    assert gpu.now_bytes == 4000 and torch.cuda.max_memory_allocated() == 8000
    gpu.total_bytes = 6000
    with pytest.raises(torch.cuda.OutOfMemoryError):
        there + 1
    assert gpu.ran_out == 1
