"""What transfer learners compute, against the formulas of their papers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from learner_cases import features, image_episode, images_like
from sklearn.linear_model import LogisticRegression
from torch import nn
from transfer_cases import CLASSES, SMALLEST, begun, built, classified_episode

from autometa.core.errors import ConfigError, DataError
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.tasks import Task
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.transfer import support_training
from autometa.learners.transfer.adapters import Adapters, AdaptersOptions
from autometa.learners.transfer.classification import collect_images
from autometa.learners.transfer.pmf import PMF, make_pseudo_queries


class Passing(nn.Module):
    """An encoder of what are embeddings already, with something to train that starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.shape = width, (width, 1, 1)
        self.scale = nn.Parameter(torch.ones(width))

    def vectors(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * self.scale


def on_features(name: str, width: int = 8, **options: Any) -> Any:
    """A learner whose episodes are embeddings."""
    learner: Any = build_learner(Recipe(learner=name, encoder=SMALLEST, options=options))
    learner.encoder = Passing(width)
    if name == "simpleshot":
        learner.mean = torch.zeros(width)
    return learner.eval()


def of_features(ways: int, shots: int, queries: int, seed: int = 0) -> InputEpisodes:
    batch = features(ways, shots, queries, seed=seed)
    labels = torch.arange(ways).repeat_interleave(queries)[None]
    return InputEpisodes(batch.support, batch.support_labels, batch.query, labels, batch.ways)


def as_arrays(episodes: InputEpisodes) -> tuple[Any, Any, Any]:
    return episodes.support[0].numpy(), episodes.support_labels[0].numpy(), episodes.query[0].numpy()


def normalised(x: Any) -> Any:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_imprinted_weights_are_normalised_means_of_normalised_embeddings() -> None:
    learner, episodes = on_features("imprinted", scale=7.0), of_features(4, 3, 2)
    support, labels, query = as_arrays(episodes)
    weights = normalised(np.stack([normalised(support[labels == c]).mean(0) for c in range(4)]))
    expected = 7.0 * normalised(query) @ weights.T
    np.testing.assert_allclose(learner(episodes)[0].detach(), expected, rtol=1e-4)


def test_the_cosine_classifier_is_trained_with_the_scale_that_answers() -> None:
    learner = built("imprinted", scale=3.0)
    classifier = begun(learner)
    x, labels = torch.randn(6, 4), torch.arange(6)
    expected = 3.0 * F.normalize(x, dim=1) @ F.normalize(cast(torch.Tensor, classifier.weight), dim=1).T
    torch.testing.assert_close(learner.class_logits(x), expected)
    F.cross_entropy(learner.class_logits(x), labels).backward()
    assert learner.log_scale.grad.abs() > 0


def test_simpleshot_centres_normalises_and_takes_the_nearest_mean() -> None:
    learner, episodes = on_features("simpleshot", scale=2.0), of_features(4, 3, 2)
    learner.mean = torch.linspace(-1, 1, 8)
    support, labels, query = as_arrays(episodes)
    z, q = (normalised(x - np.linspace(-1, 1, 8)) for x in (support, query))
    means = np.stack([z[labels == c].mean(0) for c in range(4)])
    distances = ((q[:, None] - means[None]) ** 2).sum(-1)
    expected = torch.from_numpy(-2.0 * distances).softmax(-1)
    actual = learner(episodes)[0].softmax(-1).double()
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_simpleshot_takes_the_mean_of_the_images_that_it_is_shown() -> None:
    learner = on_features("simpleshot")
    images = torch.randn(700, 8, generator=torch.Generator().manual_seed(0)) + 2
    learner.centre_on(images)
    torch.testing.assert_close(learner.mean, images.mean(0))


@pytest.mark.medium
def test_a_fine_tuned_head_ends_at_logistic_regression() -> None:
    """Classes overlap, so that the optimum is finite without a penalty."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(40)[None]
    x = torch.randn(3, 8, generator=generator)[labels] + 1.5 * torch.randn(1, 120, 8, generator=generator)
    episodes = InputEpisodes(x, labels, x[:, ::4], labels[:, ::4], torch.tensor([3]))
    learner = on_features("finetune", steps=1500, rate=0.02)
    reference = LogisticRegression(C=np.inf, tol=1e-8, max_iter=5000).fit(x[0].numpy(), labels[0].numpy())
    actual = learner(episodes)[0].softmax(-1)
    np.testing.assert_allclose(actual, reference.predict_proba(x[0, ::4].numpy()), atol=5e-3)


def test_a_fine_tuned_head_separates_what_can_be_separated() -> None:
    episodes = of_features(5, 4, 6, seed=2)
    same = replace(episodes, query=episodes.support, query_labels=episodes.support_labels)
    p = on_features("finetune")(same)[0].softmax(-1)
    assert (p.argmax(-1) == same.query_labels[0]).all()
    assert p.max(-1).values.mean() > 0.8


@pytest.mark.parametrize("scope", ["head", "last_blocks", "all"])
def test_what_is_fine_tuned_is_what_the_scope_says(scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, seen = built("finetune", scope=scope), {}
    whole = support_training.train_on_support

    def watched(loss: Any, start: Any, *rest: Any) -> Any:
        end = whole(loss, start, *rest)
        seen.update({name: not torch.equal(start[name], end[name]) for name in start})
        return end

    monkeypatch.setattr("autometa.learners.transfer.finetune.train_on_support", watched)
    learner(image_episode(3, 3, 1))
    blocks = {"head": [], "last_blocks": [2, 3], "all": [0, 1, 2, 3]}[scope]
    weights = {f"body.network.{i}.0.weight" for i in blocks}
    assert all(seen.values())
    assert {name for name in seen if name.endswith(".0.weight")} == weights
    assert {"head.weight", "head.bias"} <= seen.keys()


@pytest.mark.parametrize("steps", [0, 5])
def test_adapters_start_as_the_plain_nearest_class_mean(steps: int) -> None:
    learner, episodes = built("adapters", steps=steps), image_episode(4, 3, 2)
    with torch.no_grad():
        support, query = (
            F.normalize(learner.encoder.vectors(x[0]), dim=1) for x in (episodes.support, episodes.query)
        )
        raw = learner.encoder.vectors(episodes.support[0]).unflatten(0, (4, 3)).mean(1)
        plain = 10 * query @ F.normalize(raw, dim=1).T
        actual = learner(episodes)[0]
    assert len(support)
    if steps:
        assert (actual - plain).abs().max() > 1e-2
    else:
        torch.testing.assert_close(actual, plain, atol=1e-4, rtol=1e-4)


def test_an_adapter_is_a_small_convolution_beside_the_convolution() -> None:
    learner = built("adapters")
    images = images_like(torch.arange(6), 1)
    params = {n: 0.3 * torch.randn_like(p) for n, p in learner.initial().items()}
    maps = learner.encoder.normalise(images)
    for i, block in enumerate(learner.encoder.network):
        beside = F.conv2d(maps, params[f"network.{i}.0.weight"][..., None, None])
        maps = F.relu(F.max_pool2d(block[1](block[0](maps) + beside), 2))
    with torch.no_grad():
        actual = learner.features(params, images)
    torch.testing.assert_close(actual, maps.flatten(1) @ params["map"].T, atol=1e-4, rtol=1e-4)


def test_adapters_fit_the_support_better_than_the_plain_mean() -> None:
    task = Task.of(image_episode(4, 3, 2), 0)
    asked = replace(task, query=task.support, query_labels=task.support_labels)
    losses = [
        F.cross_entropy(built("adapters", steps=steps).task_logits(asked), asked.query_labels).item()
        for steps in (0, 40)
    ]
    assert losses[1] < 0.7 * losses[0]


def test_without_a_rate_pmf_is_a_prototypical_network() -> None:
    pmf, plain = built("pmf"), built("prototypical", metric="cosine")
    pmf.rate.zero_()
    plain.load_state_dict({n: t for n, t in pmf.state_dict().items() if n != "rate"})
    episodes = image_episode(4, 2, 3)
    torch.testing.assert_close(pmf(episodes), plain(episodes))
    torch.testing.assert_close(pmf.train().loss(episodes), plain.train().loss(episodes))


def test_fine_tuning_with_almost_no_rate_changes_almost_nothing() -> None:
    pmf, episodes = built("pmf"), image_episode(4, 2, 3)
    pmf.rate.fill_(1e-9)
    barely = pmf(episodes)
    pmf.rate.zero_()
    torch.testing.assert_close(barely, pmf(episodes).detach(), atol=1e-3, rtol=1e-3)


@pytest.mark.medium
def test_pmf_moves_pseudo_queries_towards_their_prototypes() -> None:
    pmf, task = built("pmf", steps=20), Task.of(image_episode(4, 3, 2), 0)
    views = make_pseudo_queries(task.support, np.random.default_rng(5))
    asked = replace(task, query=views, query_labels=task.support_labels)
    losses = []
    for rate in (0.0, 1e-2):
        pmf.rate.fill_(rate)
        losses.append(F.cross_entropy(pmf.task_logits(asked), asked.query_labels).item())
    assert losses[1] < losses[0]


def test_pseudo_queries_of_images_are_all_changed_alike() -> None:
    image = images_like(torch.arange(1), 0)
    views = make_pseudo_queries(image.repeat(5, 1, 1, 1), np.random.default_rng(0))
    assert views.dtype == torch.uint8 and views.shape == (5, *image.shape[1:])
    assert (views == views[0]).all() and not torch.equal(views[:1], image)


@pytest.mark.parametrize("shape", [(6, 50, 1, 1), (6, 50, 2, 2), (6, 4, 50)])
def test_pseudo_queries_of_features_lack_the_same_channels(shape: tuple[int, ...]) -> None:
    views = make_pseudo_queries(torch.ones(shape, dtype=torch.float16), np.random.default_rng(0))
    channels = views.flatten(2).transpose(1, 2) if len(shape) == 4 else views
    assert views.dtype == torch.float16
    assert (channels == channels[0, 0]).all()
    assert 0 < (channels[0, 0] == 0).sum() < 15
    assert channels[0, 0].max() == pytest.approx(1 / 0.9, rel=1e-3)


@pytest.mark.medium
def test_training_from_scratch_starts_every_task_anew_and_fits_it() -> None:
    learner, episodes = built("train_from_scratch", steps=40), image_episode(4, 5, 2)
    same = replace(episodes, query=episodes.support, query_labels=episodes.support_labels)
    assert (learner(same)[0].argmax(-1) == same.query_labels[0]).all()
    assert not any(p.requires_grad for p in learner.parameters())


def test_a_large_support_gets_fewer_steps() -> None:
    learner = built("train_from_scratch", steps=60, images=3000)
    assert [learner.steps(n) for n in (2, 50, 100, 400)] == [60, 60, 30, 10]


def test_images_are_told_by_the_training_class_that_their_label_stands_for() -> None:
    episodes = classified_episode(3, 1, 2)
    assert episodes.classes is not None
    images, labels = collect_images(episodes)
    assert labels.tolist() == [
        *episodes.classes[0].tolist(),
        *episodes.classes[0].repeat_interleave(2).tolist(),
    ]
    assert torch.equal(images, torch.cat([episodes.support[0], episodes.query[0]]))
    assert int(labels.max()) < CLASSES
    with pytest.raises(DataError, match="classes = None: draw them from a pool"):
        collect_images(replace(episodes, classes=None))


@pytest.mark.parametrize("trainable", [0, 1, "all"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("adapters", {}), ("pmf", {"scope": "last_blocks"}), ("finetune", {"scope": "last_blocks"})],
)
def test_a_pretrained_backbone_is_adapted(name: str, options: dict[str, Any], trainable: Any) -> None:
    encoder = EncoderSpec(network="test_resnet", px=32, trainable=trainable)
    recipe = Recipe(learner=name, encoder=encoder, options={"steps": 3, **options})
    learner: Any = build_learner(recipe, random_weights()).eval()
    labels = torch.arange(3).repeat(2)
    inputs = learner.encoder.prepare(images_like(labels, 0).numpy())[None]
    episodes = InputEpisodes(inputs, labels[None], inputs, labels[None], torch.tensor([3]))
    if isinstance(learner, PMF):
        learner.rate.fill_(1e-3)
    adapted = learner(episodes)
    learner.options = learner.options.model_copy(update={"steps": 0})
    assert adapted.isfinite().all()
    assert not torch.equal(adapted, learner(episodes))


def random_weights() -> dict[str, torch.Tensor]:
    """Weights of a tiny network, as a saved learner would bring them."""
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=0).state_dict()


def test_a_network_that_does_not_fit_is_named_with_the_fix() -> None:
    frozen = EncoderSpec(network="test_resnet", px=32)
    with pytest.raises(ConfigError, match=r"train_from_scratch: .* set encoder\.network to conv4"):
        build_learner(Recipe(learner="train_from_scratch", encoder=frozen), random_weights())
    with pytest.raises(ConfigError, match=r"adapters: .* set encoder\.trainable to 0"):
        Adapters(Passing(8), AdaptersOptions())  # type: ignore[arg-type]


@pytest.mark.parametrize("rates", [(), (-1e-3,)])
def test_rates_that_can_not_be_are_told(rates: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="options of pmf: rates"):
        build_learner(Recipe(learner="pmf", encoder=SMALLEST, options={"rates": rates}))
