"""Adapts the challenge's classes to autometa, and nothing else.

A bundle's `model.py` says `class MyMetaLearner(AutoMetaLearner, MetaLearner)` and
`class MyLearner(AutoLearner, Learner)` with the base classes of its `api`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

import autometa.core.early_start  # noqa: F401 - before everything that takes long to import
from autometa.backbones.shared_features import SharedFeatures
from autometa.core.budget import MemoryBudget, TimeBudget, process_age_s
from autometa.core.errors import FAILURES, describe
from autometa.core.machine import Machine, context_bytes, reason_not_to_use
from autometa.core.settings import Settings
from autometa.core.sharing import as_charged, take_part
from autometa.data.images import ImagePool, as_uint8
from autometa.data.mapped import empty_images
from autometa.data.pool import collect_pool
from autometa.learners.recipe import Recipe, adjust_recipe
from autometa.model.fitted_learner import FittedLearner
from autometa.model.load import AnyLearner, AnyPredictor, load_learner
from autometa.model.portfolio import Portfolio
from autometa.planning.declared import (
    BUDGETS,
    OF_ONE_LEARNER,
    read_limits,
    read_model_dir,
    read_own_settings,
    read_search_settings,
    read_test_spec,
    with_named_backbones,
)
from autometa.planning.meta_test import MetaTestSchedule
from autometa.planning.serving_limits import with_asked_limits
from autometa.systems.autometa import Controller
from autometa.systems.single_learner import SingleLearnerSystem


def _start() -> float:
    """Start the device; seconds since the program began, which a process of meta-test takes too."""
    machine = Machine.detect()
    seconds = machine.warm_up()
    if reason := reason_not_to_use(machine.device):
        _say(f"GPU NOT USED: {machine.device} does not start ({reason}); the CPU is used")
    elif seconds:
        kept = context_bytes(machine.device) / 2**20
        taken = (
            f"; {kept:.0f} MiB of its memory are for this process itself" if machine.device == "cuda" else ""
        )
        _say(f"{machine.device}: ready, which took {seconds:.1f} s beside other work{taken}")
    return process_age_s()


def _say(text: str) -> None:
    print(f"[autometa {process_age_s():6.1f} s] {text}", flush=True)


class System(Protocol):
    """What is made of the declared test, the limits, the folder for learners saved early, a function that
    reports, and the seconds that starting took."""

    def bootstrap(self) -> AnyLearner:
        """A valid learner within seconds, saved."""
        ...

    def run(self, pool: ImagePool) -> AnyLearner:
        """The learner that the time allows."""
        ...


class AutoMetaLearner:
    """The whole of autometa as a MetaLearner; `bundle` is the folder with its settings file."""

    bundle = Path()

    def meta_fit(self, meta_train_generator: Any, meta_valid_generator: Any) -> AutoLearner:
        """Search within the budget; learners are saved early where ingestion names the model folder."""
        settings = with_asked_limits(with_named_backbones(read_search_settings(self.bundle)))
        start_s = _start()  # first, since a device takes memory of the host too
        limits, test = read_limits(settings), read_test_spec(settings)
        torch.manual_seed(settings.seed)
        shared = take_part(Machine.detect().device)
        controller = Controller(settings, test, limits, read_model_dir(), _say, start_s, shared=shared)
        learner: AnyLearner = controller.bootstrap()

        def search() -> AnyLearner:
            with controller.stages.timed("pool"):
                pool = collect_pool(meta_train_generator, limits.train, limits.memory, _say)
            return controller.run(pool)

        return _improve(learner, search)


class EpisodicMetaLearner:
    """One learner, trained as its `recipe` says, as a MetaLearner."""

    bundle = Path()
    recipe = Recipe()

    def meta_fit(self, meta_train_generator: Any, meta_valid_generator: Any) -> AutoLearner:
        """Train within the budget; the learner is saved early where ingestion names the model folder."""
        settings = read_own_settings(self.bundle, OF_ONE_LEARNER, _say)
        start_s = _start()  # first, since a device takes memory of the host too
        limits, test = read_limits(settings), read_test_spec(settings)
        recipe = adjust_recipe(self.recipe, settings)
        training = SingleLearnerSystem(recipe, test, limits, read_model_dir(), _say, start_s)
        learner: AnyLearner = training.bootstrap()
        stream = recipe.data == "stream"
        images = meta_valid_generator if stream and meta_valid_generator is not None else meta_train_generator

        def train() -> AnyLearner:
            pool = collect_pool(images, limits.train, limits.memory, _say)
            return training.run(pool, meta_train_generator)

        return _improve(learner, train)


class SystemMetaLearner:
    """A whole system of one design, as a MetaLearner; `system` makes it."""

    bundle = Path()
    system: Callable[..., System]

    def meta_fit(self, meta_train_generator: Any, meta_valid_generator: Any) -> AutoLearner:
        """Train within the budget; the learner is saved early where ingestion names the model folder."""
        settings = read_own_settings(self.bundle, BUDGETS, _say)
        start_s = _start()  # first, since a device takes memory of the host too
        limits, test = read_limits(settings), read_test_spec(settings)
        system = type(self).system(test, limits, read_model_dir(), _say, start_s)
        learner = system.bootstrap()

        def run() -> AnyLearner:
            return system.run(collect_pool(meta_train_generator, limits.train, limits.memory, _say))

        return _improve(learner, run)


class AutoLearner:
    """A fitted learner as a Learner. A process that serves many tasks reads the files once."""

    _loaded: tuple[Path, AnyLearner] | None = None

    def __init__(self) -> None:
        self.learner: AnyLearner | None = None

    @classmethod
    def of(cls, learner: AnyLearner) -> AutoLearner:
        """The adapter of a learner at hand."""
        adapter = cls()
        adapter.learner = learner
        return adapter

    def save(self, path_to_save: str) -> None:
        """Write the learner."""
        assert self.learner is not None, "nothing was fitted or loaded"
        self.learner.save(Path(path_to_save))

    def load(self, path_to_load: str) -> None:
        """Read the learner, once per process."""
        folder = Path(path_to_load)
        if AutoLearner._loaded is None or AutoLearner._loaded[0] != folder:
            AutoLearner._loaded = folder, _load(folder)
        self.learner = AutoLearner._loaded[1]

    def fit(self, support_set: tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, int]) -> AutoPredictor:
        """Support 5-tuple of the format → predictor."""
        assert self.learner is not None, "nothing was fitted or loaded"
        images, labels, _, ways, _ = support_set
        _hear_what_is_left(self.learner)
        return AutoPredictor(self.learner.fit(_pixels(images), labels.cpu().numpy(), int(ways)))


class AutoPredictor:
    """A fitted predictor as a Predictor."""

    def __init__(self, predictor: AnyPredictor) -> None:
        self.predictor = predictor

    def predict(self, query_set: torch.Tensor) -> np.ndarray[Any, Any]:
        """Query images float32 [q, 3, px, px] → probabilities float64 [q, ways]."""
        return self.predictor.predict(_pixels(query_set))


def _pixels(images: torch.Tensor, environment: Mapping[str, str] = os.environ) -> NDArray[np.uint8]:
    """float32 images [n, 3, px, px] → uint8, in a file where the declared memory is small."""
    declared = environment.get("METADL_MEMORY_BYTES")
    small = declared is not None and MemoryBudget(int(declared)).is_small
    return as_uint8(images, empty_images(images.shape, in_file=True) if small else None)


def _improve(learner: AnyLearner, improve: Callable[[], AnyLearner]) -> AutoLearner:
    """What `improve` returns, or, where it fails, the learner at hand: better than none."""
    try:
        learner = improve()
    except FAILURES as error:
        _say(f"stopped early: {describe(error)}; the learner made before it serves")
    return AutoLearner.of(learner)


def _load(folder: Path) -> AnyLearner:
    """Whichever kind of learner was saved, with the limits of this process, on a device that has started."""
    Machine.detect().warm_up()
    learner = load_learner(folder, _say)
    if isinstance(learner, (FittedLearner, Portfolio)):
        learner.follow(_declared_schedule())
        learner.limit_memory(read_limits(Settings(), trains=False).memory)
        learner.store.shared = SharedFeatures.of(take_part(learner.shelf.device))
    return learner


def _hear_what_is_left(learner: AnyLearner, environment: Mapping[str, str] = os.environ) -> None:
    """Tell the schedule of a learner what ingestion says is still to answer: tasks that another process answered, or
    that failed, are not to come; and how long it waits for the task at hand. The original ingestion says nothing, and
    the schedule counts by itself."""
    if not isinstance(learner, (FittedLearner, Portfolio)) or learner.schedule is None:
        return
    if "METADL_TASKS_LEFT" in environment:
        learner.schedule.expect(
            int(environment["METADL_TASKS_LEFT"]),
            float(environment["METADL_IMAGES_LEFT"]),
            as_charged(float(environment.get("METADL_TASK_LIMIT_S", "inf")), learner.schedule.budget),
        )


def _declared_schedule() -> MetaTestSchedule | None:
    if "METADL_DEADLINE" not in os.environ or "METADL_TEST_SPEC" not in os.environ:
        return None
    budget = TimeBudget(float(os.environ["METADL_DEADLINE"]))
    return MetaTestSchedule.of(read_test_spec(Settings()), budget, _say, process_age_s())
