"""Adapts the challenge's classes to autometa, and nothing else.

A bundle's `model.py` says `class MyMetaLearner(AutoMetaLearner, MetaLearner)` and
`class MyLearner(AutoLearner, Learner)` with the base classes of its `api`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

import autometa.core.early_start  # noqa: F401 - before everything that takes long to import
from autometa.backbones import expand_presets
from autometa.backbones.shared_features import SharedFeatures
from autometa.core.budget import Limits, MemoryBudget, TimeBudget, own_bytes, process_age_s
from autometa.core.errors import FAILURES, ConfigError, describe
from autometa.core.machine import Machine, reason_not_to_use
from autometa.core.settings import Settings, load_yaml
from autometa.core.sharing import as_charged, take_part
from autometa.data.episodes import EpisodeSpec
from autometa.data.images import ImagePool, as_uint8
from autometa.data.mapped import empty_images
from autometa.data.pool import collect_pool
from autometa.data.test_spec import FORMAT_PX, TestSpec
from autometa.learners.recipe import Recipe
from autometa.model.fitted_learner import FittedLearner
from autometa.model.load import AnyLearner, AnyPredictor, load_learner
from autometa.model.portfolio import Portfolio
from autometa.planning.meta_test import MetaTestSchedule
from autometa.planning.serving_limits import asked_limits, with_asked_limits
from autometa.systems.autometa import Controller
from autometa.systems.single_learner import SingleLearnerSystem

SETTINGS_FILE = "settings.yaml"
BACKBONES_VARIABLE = "AUTOMETA_BACKBONES"
"""Names of backbones or presets, separated by commas."""
HEEDED = {"time_budget", "memory_budget", "test"}
"""Settings that mean something to a bundle with one learner."""


def read_limits(
    settings: Settings, environment: Mapping[str, str] = os.environ, *, trains: bool = True
) -> Limits:
    """Limits that ingestion declares in the environment, else those of the settings. While a process `trains`, the
    one that stands by for meta-test has imported what this one has: as much memory as this one holds now is the
    other's."""
    memory = environment.get("METADL_MEMORY_BYTES") or settings.memory_budget
    standby = trains and json.loads(environment.get("METADL_TEST_SPEC", "{}")).get("standby", False)
    whole = TimeBudget.of(settings.time_budget - process_age_s())
    if "METADL_DEADLINE" in environment:
        whole = TimeBudget(float(environment["METADL_DEADLINE"]))
    train = TimeBudget(float(environment.get("METADL_META_TRAIN_DEADLINE", whole.deadline)))
    if not memory:
        return Limits(train, whole, MemoryBudget.of_machine())
    return Limits(train, whole, MemoryBudget(int(memory) - (own_bytes() if standby else 0)))


def read_test_spec(settings: Settings, environment: Mapping[str, str] = os.environ) -> TestSpec:
    """The meta-test that ingestion declares in the environment, else that of the settings."""
    if "METADL_TEST_SPEC" not in environment:
        test = settings.test
        spec = EpisodeSpec(test.ways, test.shots, test.queries_per_class, test.balanced)
        return TestSpec(test.tasks, spec, test.images, test.protocol)
    declared = json.loads(environment["METADL_TEST_SPEC"])
    spec = EpisodeSpec(
        tuple(declared["ways"]), tuple(declared["shots"]), declared["queries_per_class"], declared["balanced"]
    )
    return TestSpec(
        declared["tasks"],
        spec,
        declared["images"],
        declared["protocol"],
        declared["drawn_images"],
        declared["standby"],
        declared.get("px", FORMAT_PX),
        declared.get("isolated", False),
    )


def read_settings(bundle: Path) -> Settings:
    """The bundle's own settings file, or the defaults."""
    file = bundle / SETTINGS_FILE
    return load_yaml(file, Settings) if file.exists() else Settings()


def with_named_backbones(settings: Settings, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings with the backbones that the user of a run has named, if any."""
    named = [name.strip() for name in environment.get(BACKBONES_VARIABLE, "").split(",") if name.strip()]
    return settings.model_copy(update={"backbones": expand_presets(named)}) if named else settings


def refuse_settings_of_search(bundle: Path, settings: Settings) -> None:
    """ConfigError where the settings of a bundle with one learner say what only the search of `autometa` heeds."""
    if os.environ.get(BACKBONES_VARIABLE):
        _say("--backbones and --preset have no effect on this submission")
    if asked := asked_limits():
        _say(f"{', '.join(asked)}: no effect on this submission, which trains one learner")
    if ignored := sorted(settings.model_fields_set - HEEDED):
        raise ConfigError(
            f"{bundle / SETTINGS_FILE}: {', '.join(ignored)} would have no effect, as this bundle trains one "
            "learner; remove it and change the recipe in model.py instead (settings heeded: "
            f"{', '.join(sorted(HEEDED))})"
        )


def read_model_dir(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder for learners saved early, where ingestion names it."""
    return Path(environment["METADL_MODEL_DIR"]) if environment.get("METADL_MODEL_DIR") else None


def _start() -> float:
    """Start the device; seconds since the program began, which a process of meta-test takes too."""
    machine = Machine.detect()
    seconds = machine.warm_up()
    if reason := reason_not_to_use(machine.device):
        _say(f"GPU NOT USED: {machine.device} does not start ({reason}); the CPU is used")
    elif seconds:
        _say(f"{machine.device}: ready, which took {seconds:.1f} s beside other work")
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
        settings = with_asked_limits(with_named_backbones(read_settings(self.bundle)))
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
        settings = read_settings(self.bundle)
        refuse_settings_of_search(self.bundle, settings)
        start_s = _start()  # first, since a device takes memory of the host too
        limits, test = read_limits(settings), read_test_spec(settings)
        training = SingleLearnerSystem(self.recipe, test, limits, read_model_dir(), _say, start_s)
        learner: AnyLearner = training.bootstrap()
        stream = self.recipe.data == "stream"
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
        settings = read_settings(self.bundle)
        refuse_settings_of_search(self.bundle, settings)
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
