"""Files of a classifier: the learner's own, `classifier.json`, and the examples as they were encoded. No pickle.

`pickle` of a classifier in memory (for `joblib`, `clone` and the like) carries the same files as bytes.
"""

from __future__ import annotations

import tempfile
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from autometa.classifier.portfolio_space import MEANS_ALONE, Averaging, PortfolioSpace
from autometa.classifier.rejection import Rejection
from autometa.classifier.sources import RECORD, Source, open_model, open_precomputed, open_preset
from autometa.classifier.spaces import FeatureSpace, LearnerSpace, Space, Support
from autometa.core.errors import ArtifactError
from autometa.core.files import (
    load_tensors,
    read_versioned,
    remove_other_tensors,
    save_tensors,
    write_checked,
)
from ingestion import InputError, Preparation

if TYPE_CHECKING:
    from autometa.classifier.estimator import FewShotClassifier

STEM = "support"
LABELS = "labels"
SOURCE, FILES, NAMES, AVERAGING = "_source", "_files", "_backbones", "_averaging"
"""What a pickle leaves out, and what it has instead: files of a model, or names of backbones of a preset; and how a
portfolio answers."""


class Record(BaseModel):
    """What `classifier.json` holds: how images are prepared, the classes with their numpy type, the file with the
    examples, and what `FewShotClassifier` was told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["autometa-classifier-1"] = "autometa-classifier-1"
    preparation: dict[str, Any] | None
    classes: list[str | bool | int | float]
    dtype: str
    support: str
    encoder: Literal["precomputed"] | None = None
    transductive: bool = False
    reject_below: float | None = None
    reject_label: str | bool | int | float | None = None
    rejection: dict[str, float] | None = None
    serving: dict[str, Any] | None = None
    """Bytes on disk, and the latency that `autometa fit` has measured."""
    averaging: tuple[float, float, float] | None = None
    """How a portfolio answers; version 0.2.0 did not say it."""


def save(classifier: FewShotClassifier, folder: Path) -> None:
    """Write everything that `load` needs into `folder`; `classifier.json` last. ValueError for classes that JSON
    cannot hold."""
    classes = classifier.classes_.tolist()
    if not all(isinstance(each, (str, bool, int, float)) for each in classes):
        raise ValueError(f"classes of type {type(classes[0]).__name__} cannot be saved; use text or numbers")
    folder.mkdir(parents=True, exist_ok=True)
    space = classifier._source.space
    if isinstance(space, PortfolioSpace):
        space.portfolio.save(folder)
    elif isinstance(space, LearnerSpace):
        space.learner.save(folder)
    support = classifier._support
    file = save_tensors(folder, STEM, {**support.encoded, LABELS: support.labels})
    record = Record(
        preparation=classifier._preparation.to_json() if classifier._preparation else None,
        classes=classes,
        dtype=classifier.classes_.dtype.str,
        support=file,
        encoder="precomputed" if classifier.encoder else None,
        transductive=classifier.transductive,
        reject_below=classifier.reject_below,
        reject_label=classifier.reject_label,
        rejection=vars(classifier._rejection) if classifier._rejection else None,
        serving=classifier._serving,
        averaging=_averaging_of(space),
    )
    write_checked(folder / RECORD, record)
    remove_other_tensors(folder, (STEM,), (file,))


def load(kind: type[FewShotClassifier], folder: Path) -> FewShotClassifier:
    """The classifier that `save` has written. ArtifactError where a file is missing or damaged."""
    record = read_versioned(folder / RECORD, Record, "saved classifier")
    try:
        return _restore(kind, folder, record)
    except (TypeError, ValueError, LookupError, InputError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{folder / RECORD}: damaged ({reason}); make it again") from error


def _restore(kind: type[FewShotClassifier], folder: Path, record: Record) -> FewShotClassifier:
    classifier = kind(
        None if record.encoder else folder,
        encoder=record.encoder,
        transductive=record.transductive,
        reject_below=record.reject_below,
        reject_label=record.reject_label,
    )
    encoded = load_tensors(folder, record.support)
    labels = encoded.pop(LABELS)
    classifier.classes_ = np.array(record.classes, dtype=np.dtype(record.dtype))
    classifier._source = (
        open_precomputed() if record.encoder else _averaged_as(open_model(folder), record.averaging)
    )
    classifier._preparation = Preparation.from_json(record.preparation) if record.preparation else None
    classifier._support = Support(encoded, labels, len(record.classes))
    classifier._rejection = Rejection(**record.rejection) if record.rejection else None
    classifier._serving = record.serving
    if record.encoder:
        classifier.n_features_in_ = encoded["features"].shape[1]
    return classifier


def _averaging_of(space: Space) -> tuple[float, float, float] | None:
    """As it is saved; None for what has none, and for that of version 0.2.0."""
    if not isinstance(space, PortfolioSpace) or space.averaging == MEANS_ALONE:
        return None
    return astuple(space.averaging)


def _averaged_as(source: Source, saved: tuple[float, float, float] | None) -> Source:
    """The source with the averaging that was saved: what a classifier answers stays as it was."""
    space = source.space
    if not isinstance(space, PortfolioSpace) or (saved is None and space.is_unfitted):
        return source
    return replace(source, space=replace(space, told=Averaging(*saved) if saved else MEANS_ALONE))


def pack(classifier: FewShotClassifier, state: dict[str, Any]) -> dict[str, Any]:
    """The state for a pickle: networks as the files that `save` writes, or only their names where they come from
    packages or caches."""
    state = dict(state)
    source = state.pop(SOURCE, None)
    if source is None or isinstance(source.space, FeatureSpace):
        return state
    if source.is_preset:
        assert isinstance(source.space, PortfolioSpace), "presets are portfolios"
        return state | {NAMES: ",".join(view.backbone for view in source.space.portfolio.views)}
    with tempfile.TemporaryDirectory(prefix="autometa-") as scratch:
        folder = Path(scratch)
        learner = source.space.portfolio if isinstance(source.space, PortfolioSpace) else source.space.learner
        learner.save(folder)
        files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    return state | {FILES: files, AVERAGING: _averaging_of(source.space)}


def unpack(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a classifier out of what `pack` gave."""
    state = dict(state)
    files, names, averaging = state.pop(FILES, None), state.pop(NAMES, ""), state.pop(AVERAGING, None)
    if "_support" not in state:
        return state
    if files is not None:
        with tempfile.TemporaryDirectory(prefix="autometa-") as scratch:
            for name, content in files.items():
                file = Path(scratch) / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            source = open_model(Path(scratch), state["_preparation"])
            return state | {SOURCE: _averaged_as(source, averaging)}
    return state | {SOURCE: open_precomputed() if state["encoder"] else open_preset(names)}
