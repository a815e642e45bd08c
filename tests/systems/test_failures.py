"""Whatever goes wrong after the first learner is saved, every system ends with a learner."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from autometa_cases import POOL, TEST, controller

from autometa.backbones import CATALOGUE, BackboneSpec, View, build, shelf
from autometa.backbones.feature_store import FeatureStore
from autometa.core.errors import BudgetExhausted, DataError, WeightsError, describe
from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from autometa.model.load import load_learner
from autometa.planning.forecast import Forecast
from autometa.submission import AutoMetaLearner, EpisodicMetaLearner, SystemMetaLearner
from autometa.systems import metadelta, single_learner
from autometa.systems.metadelta import MetaDeltaSystem
from autometa.systems.strong import StrongSystem
from autometa.systems.whitened import WhitenedSystem

pytestmark = pytest.mark.usefixtures("eager_only")

ERRORS = [
    BudgetExhausted("late"),
    DataError("no image"),
    torch.OutOfMemoryError("CUDA out of memory"),
    np.linalg.LinAlgError("singular"),
    torch.linalg.LinAlgError("not positive definite"),
    IndexError("target 5 is out of bounds"),
    ZeroDivisionError("division by zero"),
    MemoryError(),
    OSError("no space left on device"),
]


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def adapters(tiny_backbone: str) -> list[Any]:
    """A meta-learner of every kind."""
    small = Recipe(encoder=EncoderSpec(network="conv4", px=16, channels=8))

    def system(kind: Any, *rest: Any, **options: Any) -> Any:
        return kind(*rest, **options)

    whitened = partial(system, WhitenedSystem, view=View(tiny_backbone, 32))
    several = partial(system, MetaDeltaSystem, views=(View(tiny_backbone, 32),))
    return [
        AutoMetaLearner(),
        type("Single", (EpisodicMetaLearner,), {"recipe": small})(),
        type("Whitened", (SystemMetaLearner,), {"system": staticmethod(whitened)})(),
        type("MetaDelta", (SystemMetaLearner,), {"system": staticmethod(several)})(),
    ]


@pytest.mark.medium
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_images_that_cannot_be_read_leave_the_first_learner(
    tmp_path: Path, tiny_backbone: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, adapter in enumerate(adapters(tiny_backbone)):
        folder = tmp_path / str(number)
        folder.mkdir()
        if isinstance(adapter, AutoMetaLearner):
            (folder / "settings.yaml").write_text(f"backbones: [{tiny_backbone}]\nresolutions: [32]\n")
        monkeypatch.setenv("METADL_MODEL_DIR", str(folder))
        adapter.bundle = folder
        learner = adapter.meta_fit(failing(error), None)
        learner.save(str(folder))
        assert load_learner(folder).validation["stage"] in ("bootstrap", "untrained")


@pytest.mark.medium
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_system_that_fails_serves_with_what_it_had(
    tmp_path: Path, tiny_backbone: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = controller(None, tiny_backbone).limits
    monkeypatch.setattr(FeatureStore, "embed", failing(error))
    monkeypatch.setattr(single_learner, "measure_costs", failing(error))
    monkeypatch.setattr(metadelta, "measure_costs", failing(error))
    view, lines = View(tiny_backbone, 32), list[str]()
    small = Recipe(encoder=EncoderSpec(network="conv4", px=16, channels=8))
    systems: list[Any] = [
        single_learner.SingleLearnerSystem(small, TEST, limits, None, lines.append),
        WhitenedSystem(TEST, limits, None, lines.append, view=view),
        StrongSystem(TEST, limits, None, lines.append, view=view, further=()),
        MetaDeltaSystem(TEST, limits, None, lines.append, views=(view,)),
    ]
    for system in systems:
        lines.clear()
        system.bootstrap()
        learner = system.run(POOL)
        assert learner.validation["stage"] in ("bootstrap", "untrained")
        assert any(describe(error) in line for line in lines)


@pytest.fixture
def several(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Names of backbones: the first is broken, the others are tiny."""
    for name in ("tiny2", "tiny3"):
        monkeypatch.setitem(CATALOGUE, name, BackboneSpec(name, "test_resnet", 0.5, 64, "none"))
    return ("broken", tiny_backbone, "tiny2", "tiny3")


@pytest.mark.medium
def test_only_the_first_backbone_is_built_before_a_learner_is_saved(
    tmp_path: Path, several: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def listening(name: str, *rest: Any) -> Any:
        asked.append(name)
        if name == "broken":
            raise WeightsError("`broken` has no weights")
        return build.build_backbone(name, *rest)

    monkeypatch.setattr(shelf, "build_backbone", listening)
    lines: list[str] = []
    run = controller(tmp_path, "", lines=lines, backbones=several)
    run.bootstrap()
    assert asked == ["broken", "tiny"] and (tmp_path / "learner.json").exists()
    run._probe(POOL, run._plain_view)
    assert asked == list(several)
    assert lines.count("left out: `broken` has no weights") == 1


@pytest.mark.medium
@pytest.mark.parametrize("error", [RuntimeError("odd kernel"), torch.OutOfMemoryError("full")], ids=str)
def test_a_further_backbone_that_cannot_be_measured_is_left_out(
    tmp_path: Path, several: tuple[str, ...], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Forecast.probe

    def odd(self: Forecast, name: str, *rest: Any) -> float:
        if name == "tiny2":
            raise error
        return probe(self, name, *rest)

    monkeypatch.setattr(Forecast, "probe", odd)
    lines: list[str] = []
    run = controller(tmp_path, "", lines=lines, backbones=several[1:])
    run.bootstrap()
    assert run._probe(POOL, run._plain_view).backbone == "tiny"
    assert run._forecast.probed == ["tiny", "tiny3"]
    assert any(line.startswith("left out:") and str(error) in line for line in lines)


@pytest.mark.medium
def test_a_journal_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    run = controller(tmp_path, tiny_backbone, lines=lines)
    run.bootstrap()
    monkeypatch.setattr("autometa.core.journals.append", failing(OSError("no space left on device")))
    assert run.run(POOL).validation["stage"] == load_learner(tmp_path).validation["stage"] == "final"
    assert [line for line in lines if "no space left" in line] == [
        "no space left on device; the run goes on without it"
    ]
