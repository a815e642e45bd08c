"""Resuming a run that was killed: what must be the same, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ingestion.disk import remove
from ingestion.errors import InputError
from ingestion.outputs import IDENTITY_FILE, prepare_output_dir, refuse_in_use, write_atomically
from ingestion.preparation import Shape
from ingestion.prepare import Prepared
from ingestion.settings import IngestionSettings

MODEL_FOLDER = "model"
WHOLE_BYTES = 2**20
"""Files of a bundle up to this size are compared by content, larger ones by size."""


class RunIdentity(BaseModel):
    """What two runs must have in common for the second to continue with the learner of the first. `dataset` and
    `bundle` are a name with a digest: of file names and classes, and of the bundle's files. `class_split`: its
    digest, where one was given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    bundle: str
    seed: int
    protocol: str
    tasks: dict[str, int | None]
    image_shape: Shape = "squeeze"
    class_split: str | None = None


def identity_of(settings: IngestionSettings, prepared: Prepared) -> RunIdentity:
    """The identity of a run that is about to start."""
    datasets = [decoded.dataset for decoded in prepared.images.values()]
    described = [[d.name, d.class_names, d.labels.tolist(), [f.name for f in d.files]] for d in datasets]
    form = prepared.split.test_config.model_dump()
    form |= {"per_dataset": settings.test_tasks_per_dataset, "image_size": prepared.px}
    return RunIdentity(
        dataset=_named(settings.input_data_dir, [json.dumps(described).encode()]),
        bundle=_named(settings.submission, _bundle_parts(prepared.bundle)),
        seed=settings.seed,
        protocol=prepared.split.protocol,
        tasks=form,
        image_shape=prepared.preparation.shape,
        class_split=None if prepared.class_split is None else prepared.class_split.digest,
    )


def take_over(folder: Path, identity: RunIdentity) -> bool:
    """Whether `folder` holds a run to continue: then its model folder is kept and everything else is deleted.
    InputError if that run was of another kind; then nothing is changed."""
    file = folder / IDENTITY_FILE
    if not file.is_file() or not (folder / MODEL_FOLDER).is_dir():
        return False
    try:
        earlier = RunIdentity.model_validate_json(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValidationError) as error:
        raise InputError(f"--resume: {file} is damaged ({error}); use --overwrite to start again") from error
    there, here = earlier.model_dump(), identity.model_dump()
    if differing := [
        _difference(name, there[name], here[name]) for name in here if there[name] != here[name]
    ]:
        raise InputError(
            f"--resume: the run in {folder} differs in {'; '.join(differing)}; give the same options, or start "
            "again with --overwrite"
        )
    refuse_in_use(folder)
    for entry in folder.iterdir():
        if entry.name not in (IDENTITY_FILE, MODEL_FOLDER):
            remove(entry)
    (folder / "logs").mkdir()
    return True


def earlier_image_size(folder: Path) -> int | None:
    """The size of the images of the run in a folder; None where there is none, or it is damaged."""
    try:
        earlier = RunIdentity.model_validate_json((folder / IDENTITY_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None  # which `take_over` tells
    return earlier.tasks.get("image_size")


def write_identity(folder: Path, identity: RunIdentity) -> None:
    """Save the identity for a later run."""
    write_atomically(folder / IDENTITY_FILE, identity.model_dump_json(indent=1))


def _difference(name: str, there: Any, here: Any) -> str:
    if isinstance(here, dict):
        keys = [key for key in here if there.get(key) != here[key]]
        return ", ".join(_difference(f"{name}.{key}", there.get(key), here[key]) for key in keys)
    return f"{name} ({there} there, {here} here)"


def _bundle_parts(bundle: Path) -> Iterable[bytes]:
    for file in sorted(bundle.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            size = file.stat().st_size
            yield f"\0{file.relative_to(bundle).as_posix()}\0{size}\0".encode()
            if size <= WHOLE_BYTES:
                yield file.read_bytes()


def _named(path: Path, parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for part in parts:
        digest.update(part)
    return f"{path.resolve().stem} {digest.hexdigest()}"


def claim_output(settings: IngestionSettings, prepared: Prepared, *, overwrite: bool, resume: bool) -> bool:
    """Make the output folder ready; whether an earlier run in it goes on."""
    identity = identity_of(settings, prepared)
    if resume and take_over(settings.output_dir, identity):
        return True
    prepare_output_dir(settings.output_dir, settings.model_folder, overwrite=overwrite)
    write_identity(settings.output_dir, identity)
    return False


def resume_line(folder: Path, *, resumed: bool) -> str:
    """What a run that was asked to continue another one found, for people."""
    if resumed:
        return f"resume: the submission finds what the earlier run saved in {folder / MODEL_FOLDER}"
    return f"resume: no earlier run in {folder}, this one starts from the beginning"
