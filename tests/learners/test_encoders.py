"""Encoders: small networks from scratch, tails of backbones, frozen backbones with an adapter."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from learner_cases import image_episode
from numpy.typing import NDArray

from autometa.backbones import Backbone, build_backbone, find_spec
from autometa.backbones.architecture import create_model
from autometa.core.budget import TimeBudget
from autometa.core.errors import BudgetExhausted, ConfigError
from autometa.core.settings import validate_settings
from autometa.learners.encoder import CHUNK, LENGTH, Encoder, EncoderSpec, build_encoder
from autometa.learners.networks import MLP, Conv4, ResNet12
from autometa.learners.recipe import Recipe, build_learner

PX = 32
CUT = ["test_resnet", "test_efficientnet"]


def some_images(n: int, px: int = PX) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, 3, px, px), dtype=np.uint8)


@functools.cache
def weights_of(network: str) -> dict[str, torch.Tensor]:
    """Weights as after training: nothing is zero, batch norm has the statistics of images."""
    torch.manual_seed(0)
    model = create_model(find_spec(network))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, PX, PX))
    return model.state_dict()


@functools.cache
def backbone_of(network: str) -> Backbone:
    """The same network in one piece."""
    return build_backbone(network, "cpu", weights_of(network))


def encoder_of(network: str, **spec: Any) -> tuple[Encoder, Backbone]:
    """An encoder, and the same backbone in one piece."""
    encoder = build_encoder(EncoderSpec(network=network, px=PX, **spec), weights_of(network))
    return encoder, backbone_of(network)


def whole(backbone: Backbone, images: NDArray[np.uint8]) -> torch.Tensor:
    with torch.no_grad():
        return backbone.model.forward_features(backbone.network.normalise(torch.from_numpy(images)))


@pytest.mark.parametrize(
    ("network", "px", "pools", "shape"),
    [
        ("conv4", 28, 4, (8, 1, 1)),
        ("conv4", 84, 4, (8, 5, 5)),
        ("conv4", 28, 2, (8, 7, 7)),
        ("conv4", 8, 4, (8, 1, 1)),
        ("resnet12", 28, 4, (80, 1, 1)),
        ("resnet12", 28, 2, (80, 7, 7)),
        ("mlp", 28, 4, (8, 1, 1)),
        ("mlp", 20, 2, (8, 1, 1)),
    ],
)
def test_networks_from_scratch_give_maps(
    network: str, px: int, pools: int, shape: tuple[int, int, int]
) -> None:
    encoder = build_encoder(EncoderSpec(network=network, px=px, pools=pools, channels=8))
    maps = encoder(encoder.prepare(some_images(2, 20)))
    assert maps.shape == (2, *shape)
    assert encoder.shape == shape
    width = shape[0] if network == "resnet12" else int(np.prod(shape))
    assert encoder.vectors(encoder.prepare(some_images(2, 20))).shape == (2, encoder.width) == (2, width)
    assert encoder.backbone_state() is None
    assert encoder.training


def test_the_published_networks_have_their_size() -> None:
    def convolutions(network: torch.nn.Module) -> list[tuple[int, ...]]:
        return [tuple(p.shape) for p in network.parameters() if p.ndim == 4 and p.shape[-1] == 3]

    assert convolutions(Conv4()) == [(64, 3, 3, 3), *[(64, 64, 3, 3)] * 3]
    assert [shape[0] for shape in convolutions(ResNet12())] == [64] * 3 + [160] * 3 + [320] * 3 + [640] * 3
    widths = [(p.shape[1], p.shape[0]) for p in MLP().parameters() if p.ndim == 2]
    assert widths == [(3 * 28**2, 256), (256, 128), (128, 64), (64, 64)]


def test_a_network_without_maps_has_no_drop_block() -> None:
    with pytest.raises(ConfigError, match=r"drop_block: 0\.1 with network: mlp"):
        build_encoder(EncoderSpec(network="mlp", drop_block=0.1))


def test_preparing_resizes_all_images_in_order() -> None:
    images = np.zeros((CHUNK + 9, 3, 40, 40), dtype=np.uint8)
    images[:] = np.arange(len(images), dtype=np.uint8)[:, None, None, None]
    inputs = build_encoder(EncoderSpec(px=12, channels=4)).prepare(images)
    assert (inputs.dtype, inputs.shape) == (torch.uint8, (len(images), 3, 12, 12))
    assert torch.equal(inputs[:, 0, 5, 5], torch.arange(len(images), dtype=torch.uint8))
    assert len(build_encoder(EncoderSpec(px=12, channels=4)).prepare(images[:0])) == 0


@pytest.mark.parametrize("spec", [{}, {"network": "test_resnet", "trainable": 1}])
def test_preparing_stops_when_the_time_is_out(spec: dict[str, Any]) -> None:
    weights = weights_of("test_resnet") if spec else None
    encoder = build_encoder(EncoderSpec(px=32, **spec), weights)
    with pytest.raises(BudgetExhausted, match="preparing images"):
        encoder.prepare(some_images(2), TimeBudget.of(-1.0))


@pytest.mark.parametrize("network", CUT)
@pytest.mark.parametrize("trainable", [2, "all"])
def test_trunk_and_tail_together_are_the_backbone(network: str, trainable: int | str) -> None:
    encoder, backbone = encoder_of(network, trainable=trainable)
    inputs = encoder.prepare(some_images(3))
    assert inputs.dtype == (torch.uint8 if trainable == "all" else torch.float16)
    maps = encoder(inputs).detach()
    expected = whole(backbone, some_images(3))
    assert maps.dtype == torch.float32
    assert maps.shape[1:] == encoder.shape
    assert (maps - expected).norm() < (1e-5 if trainable == "all" else 3e-3) * expected.norm()
    vectors = encoder.vectors(encoder.prepare(some_images(3)))
    torch.testing.assert_close(vectors.norm(dim=1), torch.full((3,), LENGTH))


@pytest.mark.medium
@pytest.mark.parametrize(("network", "trainable"), [("test_resnet", "all"), ("test_efficientnet", 2)])
def test_only_the_tail_is_trained(network: str, trainable: int | str) -> None:
    encoder, backbone = encoder_of(network, trainable=trainable)
    before = {name: tensor.clone() for name, tensor in encoder.backbone_state().items()}
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder.train()(encoder.prepare(some_images(3))).square().mean().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    optimizer.step()
    after = encoder.backbone_state()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    first = next(iter(dict(backbone.model.named_parameters())))
    assert (first in moved) == (trainable == "all")
    assert moved
    assert not any("running" in name or "num_batches" in name for name in moved)
    sizes = sum(p.numel() for p in encoder.parameters()), sum(p.numel() for p in backbone.model.parameters())
    assert (sizes[0] == sizes[1]) == (trainable == "all")


def test_batch_norm_keeps_the_statistics_of_pretraining() -> None:
    encoder, _ = encoder_of("test_resnet", trainable="all")
    inputs = encoder.prepare(some_images(4))
    learning = encoder.train()(inputs[:2]).detach()
    torch.testing.assert_close(learning, encoder(inputs)[:2].detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(learning, encoder.eval()(inputs[:2]).detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", [{"trainable": 2}, {"trainable": "all"}, {}])
def test_an_encoder_is_built_again_from_its_backbone_and_its_state(spec: dict[str, Any]) -> None:
    encoder, _ = encoder_of("test_resnet", **spec)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05)
    again = build_encoder(EncoderSpec(network="test_resnet", px=PX, **spec), encoder.backbone_state())
    again.load_state_dict(encoder.state_dict())
    outputs = [e.eval()(e.prepare(some_images(2))).detach() for e in (encoder, again)]
    assert torch.equal(*outputs)


def test_a_frozen_backbone_gives_features_of_order_one() -> None:
    encoder, backbone = encoder_of("test_resnet")
    inputs = encoder.prepare(some_images(3))
    embedded = backbone.embed(some_images(3), PX)
    expected = torch.nn.functional.normalize(embedded, dim=1) * embedded.shape[1] ** 0.5
    torch.testing.assert_close(inputs[..., 0, 0], expected)
    assert encoder.shape == (embedded.shape[1], 1, 1)


def test_a_frozen_backbone_gives_maps_where_they_are_wanted() -> None:
    encoder, backbone = encoder_of("test_resnet", maps=True)
    expected = whole(backbone, some_images(3))
    inputs = encoder.prepare(some_images(3)).float()
    assert (inputs - expected).norm() < 3e-3 * expected.norm()
    assert encoder.shape == expected.shape[1:]


@pytest.mark.parametrize("maps", [False, True])
def test_the_adapter_starts_as_the_identity_and_is_all_that_is_trained(maps: bool) -> None:
    encoder, backbone = encoder_of("test_resnet", maps=maps)
    inputs = encoder.prepare(some_images(3))
    outputs = encoder(inputs)
    assert torch.equal(outputs, inputs.float())
    before = {name: tensor.clone() for name, tensor in encoder.backbone_state().items()}
    outputs.square().sum().backward()
    torch.optim.SGD(encoder.parameters(), lr=1e-3).step()
    assert not torch.equal(encoder(inputs), inputs.float())
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.backbone_state().items())
    assert not {*map(id, backbone.model.parameters())} & {*map(id, encoder.parameters())}


@pytest.mark.parametrize("trainable", [-1, 9])
def test_more_stages_than_there_are_can_not_be_trained(trainable: int) -> None:
    with pytest.raises(ConfigError, match=f"trainable = {trainable}; ResNet has 1 to 5 stages"):
        encoder_of("test_resnet", trainable=trainable)


@pytest.mark.medium
def test_a_backbone_that_is_no_chain_can_be_frozen_only() -> None:
    with pytest.raises(ConfigError, match="cannot be split into stages"):
        encoder_of("test_convnext", trainable=1)
    with pytest.raises(ConfigError, match="cannot be split into stages"):
        encoder_of("test_convnext", maps=True)
    encoder, backbone = encoder_of("test_convnext")
    assert encoder.shape == (backbone.features, 1, 1)


@pytest.mark.parametrize(
    "values", [{"trainable": "some"}, {"px": 4}, {"pools": 5}, {"channels": 0}, {"wide": 1}]
)
def test_specs_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"encoder: .*{next(iter(values))}"):
        validate_settings(EncoderSpec, values, "encoder")


@pytest.mark.parametrize(
    ("network", "px"),
    [("conv4", 28), ("resnet12", 84), ("mlp", 28), ("test_resnet", 128), ("tf_efficientnet_lite0", 128)],
)
def test_images_have_the_usual_size_of_a_network_unless_told(network: str, px: int) -> None:
    spec = EncoderSpec(network=network)
    assert spec.px == EncoderSpec.model_validate({"network": network, "px": None}).px == px
    assert EncoderSpec.model_validate_json(spec.model_dump_json()) == spec
    assert EncoderSpec.model_validate_json(spec.model_dump_json(exclude_defaults=True)) == spec
    assert EncoderSpec(network=network, px=40).px == 40
    recipe = Recipe.model_validate({"encoder": {"network": network}})
    assert Recipe.model_validate_json(recipe.model_dump_json()).encoder.px == px


@pytest.mark.parametrize(("name", "trainable"), [("prototypical", 1), ("relation", 1), ("relation", 0)])
def test_learners_train_on_backbones(name: str, trainable: int) -> None:
    spec = EncoderSpec(network="test_resnet", px=32, trainable=trainable)
    learner = build_learner(Recipe(learner=name, encoder=spec), weights_of("test_resnet")).train()
    episodes = image_episode(3, 1, 2)
    support, query = (learner.encoder.prepare(part[0].numpy()) for part in (episodes.support, episodes.query))
    inputs = type(episodes)(
        support[None], episodes.support_labels, query[None], episodes.query_labels, episodes.ways
    )
    learner.loss(inputs).backward()
    gradients = [p.grad for p in learner.encoder.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g.abs().sum() > 0 for g in gradients)
