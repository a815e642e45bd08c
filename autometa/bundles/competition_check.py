"""Checking a competition bundle as the platform's unpacker would, before it is uploaded."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from autometa.bundles.errors import BundleError
from autometa.bundles.schema import Competition, Task
from autometa.core.errors import ConfigError
from autometa.core.settings import load_yaml
from ingestion.drawn_tasks import FILE, DrawnImage, DrawnTasks

DESCRIPTION = "competition.yaml"
METADATA = ("metadata.yaml", "metadata")
LABELS = ("truth.json", "labels.csv", "meta_splits.txt")
"""Files that hold labels of the test, or may."""


def check_competition(archive: Path) -> list[str]:
    """What is wrong with a bundle, one line each; empty if nothing is. BundleError if it is no zip file."""
    try:
        with (
            zipfile.ZipFile(archive) as bundle,
            tempfile.TemporaryDirectory(prefix="autometa-check-") as scratch,
        ):
            if DESCRIPTION not in bundle.namelist():
                return [f"{DESCRIPTION}: is not at the root of the zip file"]
            file = Path(scratch) / DESCRIPTION
            file.write_bytes(bundle.read(DESCRIPTION))
            try:
                competition = load_yaml(file, Competition)
            except ConfigError as problem:
                return [str(problem).replace(str(file), DESCRIPTION)]
            return list(_check_files(bundle, competition))
    except (OSError, zipfile.BadZipFile) as problem:
        raise BundleError(f"{archive}: is no readable zip file ({problem})") from problem


def _check_files(bundle: zipfile.ZipFile, competition: Competition) -> Iterator[str]:
    named = {"image": competition.image, "terms": competition.terms}
    named |= {f"page `{page.title}`": page.file for page in competition.pages}
    for number, phase in enumerate(competition.phases):
        for field in ("starting_kit", "public_data"):
            if path := getattr(phase, field):
                named[f"phases[{number}].{field}"] = path
    for number, solution in enumerate(competition.solutions):
        if solution.path:
            named[f"solutions[{number}].path"] = solution.path
    for what, path in named.items():
        if not _exists(bundle, path):
            yield f"{what}: {path} is not in the zip file"
    if _exists(bundle, competition.terms) and not bundle.read(competition.terms).strip():
        yield f"terms: {competition.terms} is empty"
    for task in competition.tasks:
        yield from _check_task(bundle, task)


def _check_task(bundle: zipfile.ZipFile, task: Task) -> Iterator[str]:
    for field in ("scoring_program", "ingestion_program", "input_data", "reference_data"):
        path = getattr(task, field)
        if path is None or (_is_key(path) and not _exists(bundle, path)):
            continue
        where = f"tasks[{task.index}].{field}"
        if not _exists(bundle, path):
            yield f"{where}: {path} is not in the zip file"
        elif field.endswith("program") and not path.endswith(".zip"):
            yield from _check_program(bundle, where, path.rstrip("/"))
        elif field == "input_data" and not path.endswith(".zip"):
            yield from _check_input(bundle, where, path.rstrip("/"))


def _check_program(bundle: zipfile.ZipFile, where: str, path: str) -> Iterator[str]:
    found = [f"{path}/{name}" for name in METADATA if _exists(bundle, f"{path}/{name}")]
    if not found:
        yield f"{where}: {path} has no metadata.yaml"
    elif b"command:" not in bundle.read(found[0]):
        yield f"{where}: {found[0]} has no command"


def _check_input(bundle: zipfile.ZipFile, where: str, path: str) -> Iterator[str]:
    """A submission with a command of its own sees its input data, so no label of a query may be there."""
    for name in bundle.namelist():
        if name.startswith(f"{path}/") and name.rsplit("/", 1)[-1] in LABELS:
            yield f"{where}: {name} may tell labels of the test to submissions; put it into the reference data"
    if _exists(bundle, f"{path}/{FILE}"):
        try:
            drawn = DrawnTasks.model_validate_json(bundle.read(f"{path}/{FILE}"))
        except ValueError as problem:
            yield f"{where}: {path}/{FILE}: {problem}"
        else:
            yield from (f"{where}: {line}" for line in _check_images(bundle, path, drawn))


def _check_images(bundle: zipfile.ZipFile, path: str, drawn: DrawnTasks) -> Iterator[str]:
    """Every image is there, and no query has the content of an image with a label: the first that is wrong."""
    entries = {entry.filename: (entry.file_size, entry.CRC) for entry in bundle.infolist()}
    images = [image for dataset in drawn.datasets for image in dataset.images]
    for image in images:
        if f"{path}/{image.file}" not in entries:
            yield f"{path}/{image.file} is not in the zip file"
            return
    labelled = {entries[f"{path}/{image.file}"]: image for image in images if image.label is not None}
    for image in images:
        twin = labelled.get(entries[f"{path}/{image.file}"])
        if image.label is None and twin is not None and _are_same(bundle, path, image, twin):
            yield f"{path}/{image.file}, a query, has the content of {twin.file}, which is shown with its label"
            return


def _are_same(bundle: zipfile.ZipFile, path: str, one: DrawnImage, other: DrawnImage) -> bool:
    return bundle.read(f"{path}/{one.file}") == bundle.read(f"{path}/{other.file}")


def _exists(bundle: zipfile.ZipFile, path: str) -> bool:
    names = bundle.namelist()
    return path in names or any(name.startswith(f"{path.rstrip('/')}/") for name in names)


def _is_key(path: str) -> bool:
    """Whether this is the key (UUID) of something that is on the platform already."""
    return len(path) == 36 and path.count("-") == 4
