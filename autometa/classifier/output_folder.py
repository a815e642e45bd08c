"""The folder that a fit leaves its model in: who may have it, and what is deleted in it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autometa.classifier.sources import RECORD
from autometa.core.errors import ConfigError
from autometa.core.files import DESCRIPTION
from autometa.model.trained_ensemble import FOLDER
from autometa.planning.choice_log import CHOICES_FILE
from autometa.planning.stage_log import JOURNAL, STAGES_FILE

OWN_FILES = frozenset({RECORD, DESCRIPTION, JOURNAL, STAGES_FILE, CHOICES_FILE})
MEMBER = FOLDER.format(name="")
"""What an earlier fit leaves in its folder, beside files of tensors."""


def refuse_inside(folder: Path, dataset: Path) -> None:
    """ConfigError where the folder for the model lies among the images."""
    if folder.resolve().is_relative_to(dataset.resolve()):
        raise ConfigError(
            f"--output {folder}: lies inside the dataset {dataset}, whose next fit would read it; name another folder"
        )


def claim_folder(folder: Path, *, overwrite: bool) -> Path:
    """The folder for the model, made. What an earlier fit has left in it stays until `clear_folder`: nothing is lost
    for bad input. ConfigError where it holds other files, or an earlier model without `overwrite`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ConfigError(
            f"--output {folder}: cannot be used ({error.strerror}); name another folder"
        ) from error
    holds_model = RECORD in there or DESCRIPTION in there
    if there and not holds_model and not _has_only_begun(folder):
        raise ConfigError(f"--output {folder}: is not empty, and no model; name another folder")
    if holds_model and not overwrite:
        half = "" if RECORD in there else f" (it has no {RECORD}: of an interrupted fit, or of a run)"
        raise ConfigError(f"--output {folder}: holds a model; add --overwrite, or name another folder{half}")
    return folder.resolve()


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Where the block fails, what it has made of this folder and those around it goes, if there is nothing in it."""
    folder = folder.absolute()
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for each in missing:
                each.rmdir()
        raise


def clear_folder(folder: Path) -> None:
    """Delete what an earlier fit has left: the search would go on with what it finds."""
    for path in filter(_is_ours, folder.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _has_only_begun(folder: Path) -> bool:
    """Whether a fit has left nothing here but the records of what it tried, as where weights were missing."""
    paths = list(folder.iterdir())
    return any(path.name in {JOURNAL, STAGES_FILE} for path in paths) and all(map(_is_ours, paths))


def _is_ours(path: Path) -> bool:
    if path.is_dir():
        return path.name.startswith(MEMBER)
    half_written = path.name.startswith(".") and path.name.rpartition(".")[2].isdigit()
    return half_written or path.name in OWN_FILES or path.suffix == ".safetensors"
