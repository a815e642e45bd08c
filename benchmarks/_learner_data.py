"""What `learners.py` measures with: datasets split by class, another loader of episodes, and an independent
prototypical network."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision import transforms

from autometa.core.budget import UNLIMITED
from autometa.data.episodes import Episode, EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool, Rows
from autometa.evaluation.accuracy import Scores
from autometa.evaluation.validation_episodes import ValidationEpisodes
from autometa.learners.base import EpisodicLearner
from autometa.learners.encoder import EncoderSpec, build_encoder
from autometa.learners.episodes import EpisodeSampler, InputEpisodes, PoolSource
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.rotated import RotatedImages
from autometa.learners.storage import Storage
from autometa.learners.training import Training, Validation
from autometa.learners.training_settings import TrainingSettings
from ingestion import decode_image

SPLIT_SEED, VALIDATION_SEED, TEST_SEED = 0, 1, 2
FIT, VALIDATION = 0.6, 0.15
"""Shares of the classes to fit and to validate on; the others are for the test."""
QUERIES = 5
SAMPLING_FORM = EpisodeSpec((5, 5), (5, 5), 15)
SAMPLING_PX, META_BATCH = 28, 16


@dataclass(frozen=True)
class Dataset:
    """Images uint8 [n, 3, h, w] with their `files`, and the class ids to fit, to validate and to test on. `rotates`:
    a class to fit on counts as four, by its rotations (Vinyals et al. 2016, on Omniglot)."""

    pool: ImagePool
    files: tuple[Path, ...]
    fit: Rows
    validation: Rows
    test: Rows
    ways: int = 5
    shots: int = 3
    class_names: tuple[str, ...] = ()
    rotates: bool = False

    @property
    def images(self) -> RotatedImages:
        """All images as they are, then those to fit on in further rotations, if there are any."""
        rotated = np.flatnonzero(np.isin(self.pool.labels, self.fit if self.rotates else []))
        return RotatedImages(self.pool, np.arange(len(self.pool.labels)), rotated, self.fit)

    @property
    def form(self) -> EpisodeSpec:
        """The form of the tasks to validate and to test on."""
        return EpisodeSpec((self.ways, self.ways), (self.shots, self.shots), QUERIES)

    def validation_tasks(self, n: int) -> ValidationEpisodes:
        """`n` episodes of the validation classes, the same in every process."""
        rng = np.random.default_rng(VALIDATION_SEED)
        return ValidationEpisodes(sample_episodes(self.pool, self.validation, self.form, n, rng))

    def test_tasks(self, n: int) -> ValidationEpisodes:
        """`n` episodes of the test classes, the same in every process."""
        rng = np.random.default_rng(TEST_SEED)
        return ValidationEpisodes(sample_episodes(self.pool, self.test, self.form, n, rng))

    def source(self, inputs: torch.Tensor, recipe: Recipe) -> PoolSource:
        """Training episodes for a recipe, the same for the same seed: by default with the ways of the test, and from
        one shot to a few more than in the test."""
        rng = np.random.default_rng((recipe.training.seed, 3))
        form = EpisodeSpec(
            recipe.ways or self.form.ways,
            recipe.shots or (1, 2 * self.shots - 1),
            recipe.queries_per_class or QUERIES,
        )
        sampler = self.images.build_sampler(form, rng, recipe.unlabelled_per_class)
        sampler.distractors = recipe.distractors
        return PoolSource(inputs, sampler, recipe.augmentation)


def choose_datasets(data: Path, names: str | None) -> list[Path]:
    """The datasets of a folder, or those of comma-separated names. SystemExit names one that is not there."""
    folders = sorted(file.parent for file in data.glob("*/labels.csv"))
    chosen = names.split(",") if names else [folder.name for folder in folders]
    if unknown := set(chosen) - {folder.name for folder in folders}:
        known = ", ".join(folder.name for folder in folders)
        raise SystemExit(f"--datasets {unknown.pop()}: {data} has {known}")
    return [folder for folder in folders if folder.name in chosen]


@lru_cache(maxsize=1)
def load(folder: Path) -> Dataset:
    """A dataset in Meta-Album layout, its images 128 px as a run sees them."""
    with (folder / "labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    classes, labels = np.unique([row["CATEGORY"] for row in rows], return_inverse=True)
    files = tuple(folder / "images" / row["FILE_NAME"] for row in rows)
    pixels = [decode_image(file.read_bytes(), 128) for file in files]
    pool = ImagePool(np.stack(pixels), labels, np.zeros(len(classes), np.int64), (folder.name,))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(classes))
    parts = np.split(order, np.cumsum([int(FIT * len(order)), int(VALIDATION * len(order))]))
    fit, validation, test = (np.sort(part) for part in parts)
    return Dataset(pool, files, fit, validation, test, class_names=tuple(classes.tolist()))


@lru_cache(maxsize=2)
def prepared(folder: Path, spec: EncoderSpec, rotated: tuple[int, ...] = ()) -> torch.Tensor:
    """All images of a dataset as inputs of an encoder, [n, ...], then those of `rotated` classes by 90, 180 and 270°.
    They are the same for all learners, since nothing before is trained."""
    images = replace(load(folder), fit=np.array(rotated, dtype=np.int64), rotates=True).images
    return images.prepare(build_encoder(spec), UNLIMITED, Storage)


class PerImageLoader:
    """A loader that opens, resizes and stacks the images of an episode one by one."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._files = files
        self._resize = transforms.Resize(SAMPLING_PX)
        self._to_tensor = transforms.ToTensor()

    def resized(self, row: int) -> Image.Image:
        """One image of 28 px."""
        with Image.open(self._files[row]) as image:
            return self._resize(image.convert("RGB"))

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Row numbers [n, m] → pixels float32 in [0, 1], [n, m, 3, 28, 28]."""
        images = [self._to_tensor(self.resized(row)) for row in rows.flatten().tolist()]
        return torch.stack(images).unflatten(0, rows.shape)


@dataclass(frozen=True)
class SamplingSpeed:
    """Episodes per second, as float32 pixels in [0, 1], from a pool in memory and image by image, and the seconds
    for making the pool."""

    pool: float
    per_image: float
    building_s: float


def compare_sampling(folder: Path, batches: int) -> SamplingSpeed | None:
    """The same 5-way 5-shot 15-query episodes of 28 px in meta-batches of 16, drawn from a pool of bytes and
    loaded from files in the file cache (whose rows are drawn before the clock starts); the pixels must be
    equal. None for a dataset without five classes of 20 images."""
    data = load(folder)
    if (np.bincount(data.pool.labels) >= SAMPLING_FORM.shots[0] + SAMPLING_FORM.queries_per_class).sum() < 5:
        return None
    loader = PerImageLoader(data.files)
    began = time.perf_counter()
    pixels = [np.asarray(loader.resized(row)).transpose(2, 0, 1) for row in range(len(data.files))]
    inputs = torch.from_numpy(np.stack(pixels))
    building_s = time.perf_counter() - began

    def sampler() -> tuple[EpisodeSampler, np.random.Generator]:
        rng = np.random.default_rng(0)
        return EpisodeSampler(data.pool, np.arange(data.pool.classes), SAMPLING_FORM, rng), rng

    def draw(source: PoolSource) -> tuple[torch.Tensor, torch.Tensor]:
        episodes = source.draw(META_BATCH)
        return episodes.support.float().div_(255), episodes.query.float().div_(255)

    twin = sampler()[0]
    drawn = [twin.draw(META_BATCH)[0] for _ in range(batches)]
    source, again = (PoolSource(inputs, sampler()[0]) for _ in range(2))
    theirs_s = 0.0
    for batch in drawn:
        began = time.perf_counter()
        theirs = loader(batch.support_rows), loader(batch.query_rows)
        theirs_s += time.perf_counter() - began
        if not all(torch.equal(one, two) for one, two in zip(draw(source), theirs, strict=True)):
            raise AssertionError("the pool and the files give different pixels")
    began = time.perf_counter()
    for _ in range(25 * batches):
        draw(again)
    ours_s = (time.perf_counter() - began) / 25
    episodes = META_BATCH * batches
    return SamplingSpeed(episodes / ours_s, episodes / theirs_s, building_s)


def plain_conv4() -> nn.Sequential:
    """Conv-4 for pixels float32 in [-1, 1] [n, 3, 28, 28] → [n, 64]."""
    layers: list[nn.Module] = []
    for width in (3, 64, 64, 64):
        conv = nn.Conv2d(width, 64, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten())


def pixels(images: torch.Tensor, network: nn.Module) -> torch.Tensor:
    """uint8 → floats in [-1, 1], in the precision of the weights of a network."""
    return images.to(next(network.parameters()).dtype) / 127.5 - 1


def reference_loss(network: nn.Module, episodes: InputEpisodes) -> torch.Tensor:
    """Cross-entropy under minus the *squared* distance to prototypes, a meta-batch through batch norm at
    once; easyfsl's scores are minus the distance."""
    from easyfsl.methods import PrototypicalNetworks  # noqa: PLC0415

    images = torch.cat([episodes.support, episodes.query], dim=1)
    features = network(pixels(images.flatten(0, 1), network)).unflatten(0, images.shape[:2])
    losses = []
    for place, part in enumerate(features):
        method, shots = PrototypicalNetworks(), episodes.support.shape[1]
        method.process_support_set(part[:shots], episodes.support_labels[place])
        losses.append(F.cross_entropy(-method(part[shots:]).square(), episodes.query_labels[place]))
    return torch.stack(losses).mean()


def train_reference(network: nn.Module, source: PoolSource, settings: TrainingSettings) -> None:
    """`max_steps` steps of Adam with a cosine schedule and clipped gradients."""
    steps = settings.max_steps or 1
    optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate)
    network.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
        loss = reference_loss(network, source.draw(settings.meta_batch))
        optimizer.zero_grad()
        loss.backward()
        assert settings.clip is not None
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimizer.step()


@torch.no_grad()
def reference_accuracies(network: nn.Module, inputs: torch.Tensor, tasks: Sequence[Episode]) -> Scores:
    """Normalised accuracy of each task (with equally many queries of each class), one task at a time."""
    from easyfsl.methods import PrototypicalNetworks  # noqa: PLC0415

    method, found = PrototypicalNetworks(network).eval(), []
    for task in tasks:
        method.process_support_set(
            pixels(inputs[task.support_rows], network), torch.from_numpy(task.support_labels)
        )
        right = method(pixels(inputs[task.query_rows], network)).argmax(-1).numpy() == task.query_labels
        found.append((right.mean() - 1 / task.ways) / (1 - 1 / task.ways))
    return np.array(found)


def copied(learner: EpisodicLearner) -> nn.Sequential:
    """The plain Conv-4 with the weights of a prototypical network."""
    network = plain_conv4()
    for theirs, ours in zip(network.parameters(), learner.parameters(), strict=True):
        theirs.data = ours.detach().clone()
    return network


def float64_difference(recipe: Recipe, source: PoolSource, steps: int = 5) -> float:
    """Largest relative difference between both losses over some steps of plain gradient descent in float64. In
    float32, rounding errors, which Adam amplifies, lead to other weights within a few steps."""
    learner = build_learner(recipe)
    network, worst = copied(learner).double(), 0.0
    optimizers = [torch.optim.SGD(m.parameters(), 1e-3) for m in (learner.double().train(), network.train())]
    for _ in range(steps):
        episodes = source.draw(recipe.training.meta_batch)
        losses = learner.loss(episodes), reference_loss(network, episodes)
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ours, theirs = (loss.item() for loss in losses)
        worst = max(worst, abs(ours - theirs) / abs(theirs))
    return worst


def same_steps(
    recipe: Recipe,
    data: Dataset,
    inputs: torch.Tensor,
    tests: ValidationEpisodes,
    validations: ValidationEpisodes,
) -> tuple[Scores, Scores]:
    """Normalised accuracies of the test tasks of our prototypical network and the reference after `max_steps` on the
    same episodes from the same weights; of both, the last state, or the first if it is as good on the validation
    tasks."""
    learner = build_learner(recipe)
    network = copied(learner)
    first = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    validation = Validation(inputs, validations)
    Training(learner, data.source(inputs, recipe), validation, recipe.training, UNLIMITED).run()
    before = reference_accuracies(network, inputs, validations.episodes).mean()
    train_reference(network, data.source(inputs, recipe), recipe.training)
    if reference_accuracies(network, inputs, validations.episodes).mean() <= before:
        network.load_state_dict(first)
    return learner.validate(inputs, tests).accuracies, reference_accuracies(network, inputs, tests.episodes)
