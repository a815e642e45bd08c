"""A reproduction: a learner is trained as a recipe says, without a clock, and tested on tasks as in the paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import autometa
from autometa.core.budget import UNLIMITED
from autometa.core.claims import claim_folder
from autometa.core.files import write_model
from autometa.core.machine import Machine
from autometa.data.episodes import EpisodeSpec, sample_episodes
from autometa.data.images import ImagePool
from autometa.evaluation.accuracy import Scores, interval95
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.recipe import Recipe
from autometa.learners.storage import Storage
from autometa.learners.trained import TrainedLearner
from autometa.learners.training import Training, TrainingRecord, Validation
from autometa.learners.training_run import build_pool_source, build_untrained
from autometa.learners.training_spec import choose_training_spec
from autometa.papers.paper_data import MOST_IN_MEMORY_BYTES, PaperData
from autometa.papers.recipes import Achieved, NamedRecipe
from autometa.papers.result import RESULT, Identity, Result

MARK, CHECKPOINT, LEARNER = ".autometa-reproduction", "training", "learner"
VALIDATION_SEED, TEST_SEED = 1, 2
AT_ONCE = 100
"""Test tasks between two reports."""


@dataclass(frozen=True)
class Reproduction:
    """What is reproduced: a recipe, with a seed of its training, and with other steps or test tasks where these are
    given."""

    named: NamedRecipe
    seed: int = 0
    steps: int | None = None
    tasks: int | None = None

    @property
    def recipe(self) -> Recipe:
        """What the learner is trained by."""
        return self.named.recipe.prepared(self.seed, self.steps)

    @property
    def n_tasks(self) -> int:
        """Of the test."""
        return self.tasks or self.named.recipe.test.tasks

    def is_shortened(self, steps: int) -> bool:
        """Whether a training of so many steps made others than the recipe's, or there are fewer tasks."""
        recipe = self.named.recipe
        return steps != recipe.steps or self.n_tasks < recipe.test.tasks

    def run(self, data: PaperData, output: Path, report: Callable[[str], None]) -> Result:
        """Train, or go on with the training that was begun in `output`, save the learner there, test it, and write
        `result.json`.

        ConfigError where the folder cannot be used or holds another training; DataError where the data has no such
        episodes; ArtifactError where a checkpoint is damaged.
        """
        with claim_folder(output / MARK, "reproduction", "", goes_on=True):
            paper, recipe = self.named.recipe, self.recipe
            steps = recipe.training.max_steps or 0
            Identity.of(self.named.name, paper, data, seed=self.seed, steps=steps).check(output)
            device = Machine.detect().device
            fitted = build_untrained(recipe, paper.test.spec, device)
            check_all_rooms(data, fitted, paper.test.spec)
            report(f"{len(data.pool.images)} images of {data.pool.classes} classes, on {device}")
            inputs = prepare_images(fitted, data.pool)
            record = train(fitted, inputs, data, paper.test.spec, output / CHECKPOINT, report)
            (output / LEARNER).mkdir(exist_ok=True)
            fitted.save(output / LEARNER)
            accuracies = measure(fitted, inputs, data, paper.test.spec, self.n_tasks, report)
            result = self._summarise(data, record, accuracies, device)
            write_model(output / RESULT, result)
        return result

    def _summarise(self, data: PaperData, record: TrainingRecord, accuracies: Scores, device: str) -> Result:
        paper, ways = self.named.recipe, self.named.recipe.test.ways
        untrained, validation = (
            100 * float(plain_accuracies(answer, ways).mean()) for answer in (record.untrained, record.best)
        )
        return Result(
            recipe=self.named.name,
            paper=paper.paper,
            table=paper.table,
            data=paper.data,
            images=len(data.pool.images),
            classes=(len(data.train), len(data.validation), len(data.test)),
            seed=self.seed,
            steps=record.steps,
            tasks=len(accuracies),
            shortened=self.is_shortened(record.steps),
            published=paper.published,
            achieved=Achieved(accuracy=100 * float(accuracies.mean()), interval=100 * interval95(accuracies)),
            untrained=untrained,
            validation=validation,
            ended=record.ended,
            training_s=record.seconds,
            device=device,
            version=autometa.__version__,
        )


def check_all_rooms(data: PaperData, fitted: TrainedLearner, spec: EpisodeSpec) -> None:
    """DataError where the classes of one of the splits have no episode of the form that it needs."""
    data.check_room("train", choose_training_spec(fitted.recipe, fitted.learner, spec))
    for part in ("validation", "test"):
        data.check_room(part, spec)


def prepare_images(fitted: TrainedLearner, pool: ImagePool) -> torch.Tensor:
    """All images as the encoder takes them, [n, ...]; in a file where they are too many for memory."""
    return fitted.learner.encoder.prepare(pool.images, storage=Storage(memory_bytes=MOST_IN_MEMORY_BYTES))


def train(
    fitted: TrainedLearner,
    inputs: torch.Tensor,
    data: PaperData,
    spec: EpisodeSpec,
    checkpoint: Path,
    report: Callable[[str], None],
) -> TrainingRecord:
    """Train in place, with the validation classes to choose the state that is kept; where `checkpoint` holds a
    training that was interrupted, it goes on."""
    recipe, labels = fitted.recipe, without_pixels(data.pool)
    episodes = sample_episodes(
        labels,
        data.validation,
        spec,
        recipe.validation_episodes,
        np.random.default_rng(VALIDATION_SEED),
    )
    training = Training(
        fitted.learner,
        build_pool_source(fitted, inputs, labels, data.train, spec),
        Validation(inputs, ValidationEpisodes(episodes)),
        recipe.training,
        UNLIMITED,
        fitted.device,
        checkpoint=checkpoint,
        report=report,
    )
    record = training.run()
    fitted.validation = {"stage": "final", "steps": record.steps, **record.best.figures()}
    report(record.summary())
    return record


def measure(
    fitted: TrainedLearner,
    inputs: torch.Tensor,
    data: PaperData,
    spec: EpisodeSpec,
    tasks: int,
    report: Callable[[str], None],
) -> Scores:
    """Plain accuracy of each of so many test tasks, float64 [tasks]; they are the same in every process."""
    rng = np.random.default_rng(TEST_SEED)
    episodes = sample_episodes(without_pixels(data.pool), data.test, spec, tasks, rng)
    found: list[Scores] = []
    for start in range(0, tasks, AT_ONCE):
        part = ValidationEpisodes(episodes[start : start + AT_ONCE])
        found.append(plain_accuracies(fitted.learner.validate(inputs, part), spec.ways[0]))
        report(
            f"{min(start + AT_ONCE, tasks)} of {tasks} test tasks: {100 * np.concatenate(found).mean():.2f} %"
        )
    return np.concatenate(found)


def plain_accuracies(answer: Answer, ways: int) -> Scores:
    """Share of right answers of each episode, float64 [episodes], out of the normalised accuracies, where all have so
    many ways and as many queries of each class."""
    return 1 / ways + (1 - 1 / ways) * answer.accuracies


def without_pixels(pool: ImagePool) -> ImagePool:
    """A pool with one pixel an image: all that drawing episodes needs."""
    return replace(pool, images=np.zeros((len(pool.images), 3, 1, 1), np.uint8))
