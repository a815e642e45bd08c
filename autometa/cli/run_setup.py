"""What the options of a run lead to: its submission, its folder, its weights, and the settings of ingestion."""

from __future__ import annotations

import difflib
import fcntl
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from autometa.bundles.errors import BundleError
from autometa.bundles.shipped import DEMO, find_bundle
from autometa.core.budget import MemoryBudget, stopwatch
from autometa.core.claims import claim_folder
from autometa.core.errors import ConfigError
from autometa.core.footprint import refuse_too_small
from autometa.core.options import RunOptions, ServingLimitOptions, WeightsOptions, task_settings
from autometa.planning.serving_limits import asked_limits, to_variables
from ingestion import IngestionSettings
from ingestion.archives import UNREADABLE
from ingestion.disk import remove

MARK_FILE = ".autometa-run"
WEIGHTS_FOLDER = "weights"
"""Of a bundle that carries some."""
MODEL_BYTES, MOST_MODELS = 2**20, 20
"""Of a zip file, what is looked at: the beginning of its `model.py`, wherever it lies."""
OURS, SEARCH = "autometa.submission", "AutoMetaLearner"
"""What the `model.py` of our bundles imports, and that of those that search. The others of them have one learner, and
say themselves that limits have no effect."""


def prepare_weights(
    options: WeightsOptions,
    dataset: Path,
    time_budget_s: float,
    show: Callable[[str], None],
    memory_bytes: int | None = None,
) -> float:
    """Tell the submission which backbones to use and where their weights may be, and download what is missing where
    that is allowed; `show` gets a line for each. Seconds that this took, which do not count for the run."""
    names = options.backbones or options.preset or ""
    if names:
        os.environ["AUTOMETA_BACKBONES"] = names
    if options.download == "never":
        os.environ["AUTOMETA_CACHES"] = "no"
    if options.weights_dir is not None:
        os.environ["AUTOMETA_WEIGHTS_DIR"] = str(options.weights_dir.resolve())
    if options.download != "allow":
        return 0.0
    elapsed = stopwatch()
    from autometa.cli.downloads import Budget, download  # noqa: PLC0415 - slow to import, and rarely needed

    memory = memory_bytes or MemoryBudget.of_machine().total_bytes
    download(options, Budget(dataset, time_budget_s, memory), show)
    return elapsed()


def check_backbones(options: WeightsOptions, submission: Path, show: Callable[[str], None]) -> float:
    """Refuse `--backbones` where the weights of none of them are on this machine; `show` gets a line on the others. A
    bundle that carries weights is not asked. Seconds that this took, which do not count for the run. ConfigError
    names a backbone, and what to do."""
    elapsed = stopwatch()
    if options.backbones is None or not names_ours(submission, SEARCH) or _carries_weights(submission):
        return 0.0
    from autometa.backbones.catalogue import CATALOGUE, expand_presets, find_spec, is_packaged  # noqa: PLC0415
    from autometa.backbones.local_weights import find_local_weights  # noqa: PLC0415 - imports timm

    names = expand_presets(part.strip() for part in options.backbones.split(",") if part.strip())
    specs = {name: find_spec(name) for name in names}
    lacking = [
        name for name, spec in specs.items() if not is_packaged(spec) and find_local_weights(spec) is None
    ]
    for name in lacking:
        near = difflib.get_close_matches(name, CATALOGUE, n=1)
        meant = f", did you mean {near[0]}?" if near and name not in CATALOGUE else ""
        told = f"--backbones {name}: its weights are not on this machine{meant}; run: autometa backbones fetch {name}"
        if len(lacking) == len(names):
            raise ConfigError(f"{told}, or name one that `autometa backbones` shows as usable")
        show(f"{told}; the run goes on with the others")
    return elapsed()


def _carries_weights(submission: Path) -> bool:
    if submission.is_dir():
        return (submission / WEIGHTS_FOLDER).is_dir()
    try:
        with zipfile.ZipFile(submission) as archive:
            return any(name.startswith(f"{WEIGHTS_FOLDER}/") for name in archive.namelist())
    except (OSError, *UNREADABLE):
        return True  # ingestion says what is wrong with it


def check_memory(budget_bytes: int | None, show: Callable[[str], None]) -> float:
    """Refuse a memory budget that the libraries alone would use up, where it is small; `show` gets a line on what
    they take. Seconds that this took, which do not count for the run. ConfigError names the figure."""
    elapsed = stopwatch()
    if budget_bytes is not None and MemoryBudget(budget_bytes).is_small:
        refuse_too_small(budget_bytes, show)
    return elapsed()


def pass_limits(options: ServingLimitOptions, submission: Path, show: Callable[[str], None]) -> None:
    """Tell the submission what its learner may cost those who use it; `show` gets a line where it would not heed
    that."""
    variables = to_variables(options)
    for variable, value in variables.items():
        os.environ.pop(variable, None)
        if value is not None:
            os.environ[variable] = value
    if (asked := asked_limits(variables)) and not names_ours(submission):
        show(f"{', '.join(asked)}: no effect on this submission, which does not use autometa's search")


def names_ours(submission: Path, what: str = OURS) -> bool:
    """Whether the `model.py` of a bundle, a folder or a zip, names what all of autometa's bundles are made of, or
    only some of them (`SEARCH`)."""
    try:
        if submission.is_dir():
            return what in (submission / "model.py").read_text(encoding="utf-8")
        with zipfile.ZipFile(submission) as archive:
            files = [name for name in archive.namelist() if Path(name).name == "model.py"]
            return any(what.encode() in _beginning(archive, name) for name in files[:MOST_MODELS])
    except (OSError, *UNREADABLE):
        return True  # ingestion says what is wrong with it


def _beginning(archive: zipfile.ZipFile, name: str) -> bytes:
    """The first bytes of a file in a zip, which may unpack to more than memory holds."""
    with archive.open(name) as file:
        return file.read(MODEL_BYTES)


def ingestion_settings(options: RunOptions, started: float) -> IngestionSettings:
    """The settings of ingestion. ConfigError for an unknown baseline."""
    dataset = options.dataset or DEMO
    name = f"{dataset.resolve().name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = options.output or Path("output") / name
    return IngestionSettings(
        input_data_dir=dataset,
        submission=find_submission(options.submission),
        output_dir=folder / "ingestion",
        **task_settings(options),
        class_split=options.class_split,
        isolate_tasks=options.isolate_tasks,
        time_budget_s=options.time_budget,
        memory_budget_bytes=options.memory_budget or MemoryBudget.of_machine().total_bytes,
        gpu_memory_budget_bytes=options.gpu_memory_budget,
        started=started,
    )


def claim_output(folder: Path, *, overwrite: bool, resume: bool = False) -> IO[str]:
    """Reserve `folder` for this run, as long as the returned file is open.

    `overwrite`, `resume`: an earlier run may be in it, which stays until ingestion has found its input sound.
    ConfigError if the folder holds other files, another run uses it, or it cannot be written.
    """
    advice = "add --overwrite or --resume"
    return claim_folder(folder / MARK_FILE, "run", advice, goes_on=overwrite or resume)


def give_up_output(folder: Path, *, was_there: bool) -> None:
    """Leave nothing of a run that was refused in its folder, and delete the folder that it has made."""
    if [path.name for path in folder.iterdir()] == [MARK_FILE]:
        remove(folder / MARK_FILE if was_there else folder)


def is_in_use(folder: Path) -> bool:
    """Whether a run has reserved this folder and has not ended."""
    try:
        with (folder / MARK_FILE).open("rb") as mark:
            fcntl.flock(mark, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no mark, or a file system without locks
        return False
    return False


def find_submission(name: str) -> Path:
    """A bundle by path, or a baseline by name. ConfigError lists the baselines."""
    try:
        return find_bundle(name, "--submission")
    except BundleError as error:
        raise ConfigError(str(error)) from error
