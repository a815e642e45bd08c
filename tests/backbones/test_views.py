"""Views: layers of a network from one pass, mirrored images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import colour_pool
from test_engines import IMAGES, PX, tiny  # type: ignore[import-not-found]

from autometa.backbones import Backbone, View, build, find_spec
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget
from autometa.core.errors import ConfigError
from autometa.data.images import hash_images
from autometa.evaluation.member import Member
from autometa.heads import METRICS, Metric
from autometa.model.fitted_learner import FittedLearner
from autometa.planning.plan import one_per_pass

ALL = ("last", "stage3", "stage4")


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_resnet", "test_vit", "test_convnext"])
def test_one_pass_gives_all_layers(architecture: str) -> None:
    backbone = tiny(architecture)
    assert tuple(backbone.widths) == ALL
    output = backbone.embed_layers(IMAGES, PX)
    assert output.shape == (19, sum(backbone.widths.values()))
    pixels = backbone.network.normalise(IMAGES)
    with torch.inference_mode():
        plain = backbone.model(pixels)
        maps = backbone.model.forward_intermediates(pixels, intermediates_only=True)
    torch.testing.assert_close(backbone.pick(output, ("last",)), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        backbone.pick(output, ("stage4",)), maps[-1].mean((2, 3)), rtol=1e-4, atol=1e-5
    )


def test_a_transformer_of_one_size_only_works_at_that_size() -> None:
    spec = find_spec("test_vit")
    backbone = Backbone(spec, build.create_model(spec), "cpu")
    assert backbone.embed(IMAGES[:2], 160).shape == (2, backbone.features)


def test_several_layers_have_equal_weight() -> None:
    backbone = tiny("test_efficientnet")
    output = backbone.embed_layers(IMAGES, PX)
    joined = backbone.pick(output, ("last", "stage4"))
    widths = [backbone.widths["last"], backbone.widths["stage4"]]
    for block in torch.split(joined, widths, dim=1):
        torch.testing.assert_close(block.norm(dim=1), torch.ones(19))
    with pytest.raises(ConfigError, match="stage9"):
        backbone.pick(output, ("stage9",))


def test_flip_averages_over_the_mirror_image() -> None:
    backbone = tiny("test_resnet")
    mirrored = IMAGES.flip(3)
    both = backbone.embed_layers(IMAGES, PX, flip=True)
    mean = (backbone.embed_layers(IMAGES, PX) + backbone.embed_layers(mirrored, PX)) / 2
    torch.testing.assert_close(both, mean)
    torch.testing.assert_close(both, backbone.embed_layers(mirrored, PX, flip=True))


def test_views_say_what_they_are() -> None:
    plain, deep = View("net", 128), View("net", 128, ALL, flip=True)
    assert (str(plain), str(deep)) == ("net@128", "net@128:last+stage3+stage4:flip")
    assert [v.px for v in one_per_pass([plain, View("net", 128, ("stage4",)), View("net", 96)])] == [96, 128]
    with pytest.raises(ConfigError, match="stage5"):
        View("net", 128, ("stage5",))
    with pytest.raises(ConfigError, match="each once"):
        View("net", 128, ("last", "last"))


def test_layers_of_a_view_cost_no_second_pass(tiny_backbone: str) -> None:
    images = colour_pool().images[:20]
    shelf = BackboneShelf("cpu")
    store = FeatureStore(shelf, MemoryBudget(8 * 2**30))
    store.embed(View(tiny_backbone, 32), images, hash_images(images))
    deep = View(tiny_backbone, 32, ALL)
    assert store.missing(deep, hash_images(images)) == 0
    features = store.embed(deep, images, hash_images(images))
    assert features.shape == (20, sum(shelf(tiny_backbone).widths.values()))
    assert store.missing(View(tiny_backbone, 32, ALL, flip=True), hash_images(images)) == 20


def test_learners_keep_their_layers(tiny_backbone: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    params = {"transform": "cl2n", "metric": "cosine"}
    member = Member(
        backbone=tiny_backbone, px=32, layers=("last", "stage4"), flip=True, head="centroid", params=params
    )
    pool = colour_pool()
    shelf = BackboneShelf("cpu")
    width = shelf(tiny_backbone).widths["last"] + shelf(tiny_backbone).widths["stage4"]
    metric = Metric(METRICS["cl2n"], mean=torch.zeros(width))
    learner = FittedLearner((member,), shelf, {(member.view, "cl2n"): metric})
    learner.save(tmp_path)
    rows = np.concatenate([pool.rows_of_class[c][:2] for c in range(3)])
    labels = np.repeat(np.arange(3), 2)
    again = FittedLearner.load(tmp_path)
    ours, theirs = (one.fit(pool.images[rows], labels, 3).predict(pool.images) for one in (learner, again))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert again.views == [member.view]


@pytest.mark.parametrize(
    "view",
    [
        View("a.b@c", 64),
        View("net", 96, ("last", "stage4"), flip=True),
        View("net", 32, flip=True, variant="tuned"),
    ],
)
def test_a_view_is_known_by_its_name(view: View) -> None:
    assert View.of(str(view)) == view


@pytest.mark.parametrize("name", ["net", "net@", "@64", "net@64:stage9"])
def test_a_name_of_no_view_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError):
        View.of(name)
