"""Networks cut into stages compute what they compute in one piece."""

from __future__ import annotations

import pytest
import timm
import torch
from torch.func import functional_call

from autometa.backbones import list_stages, split
from autometa.core.errors import ConfigError

PIXELS = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "test_resnet", "tf_efficientnet_lite0", "mobilenetv2_050"]
)
def test_trunk_and_tail_together_are_the_network(name: str) -> None:
    model = timm.create_model(name, pretrained=False, num_classes=0).eval()
    with torch.inference_mode():
        whole = model.forward_features(PIXELS)
        for trainable in (1, 2, len(list_stages(model))):
            trunk, tail = split(model, trainable)
            torch.testing.assert_close(tail(trunk(PIXELS)), whole)


def test_the_tokens_of_a_transformer_become_a_map() -> None:
    model = timm.create_model("test_vit", pretrained=False, num_classes=0, dynamic_img_size=True).eval()
    with torch.inference_mode():
        tokens = model.forward_features(PIXELS)[:, model.num_prefix_tokens :]
        trunk, tail = split(model, 2)
        maps = tail(trunk(PIXELS))
    assert maps.shape[-2] == maps.shape[-1]
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), tokens)


def test_all_parameters_of_a_whole_transformer_can_be_others() -> None:
    model = timm.create_model("test_vit", pretrained=False, num_classes=0, dynamic_img_size=True).eval()
    tail = split(model, len(list_stages(model)))[1]
    other = timm.create_model("test_vit", pretrained=False, num_classes=0, dynamic_img_size=True).eval()
    with torch.no_grad():
        other.cls_token.add_(1)
        other.pos_embed.mul_(2)
    wanted = split(other, len(list_stages(other)))[1]
    params = {name: p.detach().clone().requires_grad_() for name, p in wanted.named_parameters()}
    maps = functional_call(tail, params, (PIXELS,))
    torch.testing.assert_close(maps, wanted(PIXELS))
    gradients = torch.autograd.grad(maps.square().sum(), list(params.values()))
    assert all(bool(gradient.any()) for gradient in gradients)
    with torch.no_grad():
        assert not torch.allclose(tail(PIXELS), maps), "the network is as it was"


def test_what_can_not_be_cut_is_said() -> None:
    with pytest.raises(ConfigError, match="Linear cannot be split"):
        list_stages(torch.nn.Linear(2, 2))
    model = timm.create_model("test_resnet", pretrained=False, num_classes=0)
    with pytest.raises(ConfigError, match="trainable = 9; ResNet has 1 to 5"):
        split(model, 9)
