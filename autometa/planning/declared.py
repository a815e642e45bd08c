"""What ingestion and a bundle's settings file declare to the submission: budgets, the test, folders, choices."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from autometa.backbones import expand_presets
from autometa.core.budget import Limits, MemoryBudget, TimeBudget, own_bytes, process_age_s
from autometa.core.errors import ConfigError
from autometa.core.settings import Settings, load_yaml
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import FORMAT_PX, TestSpec
from autometa.planning.serving_limits import asked_limits

SETTINGS_FILE = "settings.yaml"
BACKBONES_VARIABLE = "AUTOMETA_BACKBONES"
"""Names of backbones or presets, separated by commas."""
BUDGETS = frozenset({"time_budget", "memory_budget", "test"})
"""Settings that mean something to every bundle."""
OF_ONE_LEARNER = BUDGETS | {"max_steps", "meta_batch", "validation_episodes"}
"""Those that mean something to a bundle that trains one learner."""
NOT_OF_A_SEARCH = frozenset({"max_steps", "meta_batch"})


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


def read_search_settings(bundle: Path) -> Settings:
    """The settings of a bundle that searches. ConfigError names those that only one learner heeds."""
    settings = read_settings(bundle)
    if given := sorted(settings.model_fields_set & NOT_OF_A_SEARCH):
        raise ConfigError(
            f"{bundle / SETTINGS_FILE}: {', '.join(given)} would have no effect, as this bundle searches within a "
            "time budget; remove it, or set it in a bundle that trains one learner"
        )
    return settings


def read_own_settings(bundle: Path, heeded: Collection[str], report: Callable[[str], None]) -> Settings:
    """The settings of a bundle without a search. ConfigError names those that are not among the `heeded` ones; what
    the user of the run has asked of a search is reported to have no effect."""
    settings = read_settings(bundle)
    if os.environ.get(BACKBONES_VARIABLE):
        report("--backbones and --preset have no effect on this submission")
    if asked := asked_limits():
        report(f"{', '.join(asked)}: no effect on this submission, which does not search")
    if ignored := sorted(settings.model_fields_set - set(heeded)):
        raise ConfigError(
            f"{bundle / SETTINGS_FILE}: {', '.join(ignored)} would have no effect, as this bundle does not search; "
            f"remove it and change the recipe in model.py instead (settings heeded: {', '.join(sorted(heeded))})"
        )
    return settings


def read_model_dir(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder for learners saved early, where ingestion names it."""
    return Path(environment["METADL_MODEL_DIR"]) if environment.get("METADL_MODEL_DIR") else None
