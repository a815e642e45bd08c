"""How the processes of a submission are started in a run: the sandbox, what they may touch, and their variables."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ingestion.access import (
    PACKAGE_ROOT,
    Access,
    accessible,
    child_environment,
    readable_folders,
    secrets,
)
from ingestion.confinement import check_memory_is_limited, is_offline, isolation_trouble
from ingestion.contract import Limits, TestSpec, contract_variables
from ingestion.disk import DiskMeter
from ingestion.errors import InputError
from ingestion.gpu_memory import GpuMeter
from ingestion.images import default_cache_dir
from ingestion.memory import Inode, MemoryMeter
from ingestion.prepare import Prepared
from ingestion.process import LaunchPlan
from ingestion.sandbox import Sandbox, choose_sandbox
from ingestion.settings import IngestionSettings
from ingestion.small_memory import allocator_variables
from ingestion.submission_log import SubmissionLog


def choose_for(settings: IngestionSettings) -> tuple[Sandbox, str]:
    """The sandbox of a run, and a line that says why. InputError where it cannot keep what was asked for."""
    sandbox, line = choose_sandbox(settings.sandbox)
    if settings.sandbox == "strict":
        check_memory_is_limited(settings.memory_budget_bytes)
    if settings.isolate_tasks and (trouble := isolation_trouble(sandbox)):
        raise InputError(f"--isolate-tasks: {trouble}; leave it out, or use a system that has what lacks")
    return sandbox, line


def access_of(settings: IngestionSettings, prepared: Prepared, sandbox: Sandbox, scratch: Path) -> Access:
    """What a submission may touch in meta-training, and in meta-test where tasks are not isolated. InputError where
    it could not be kept from what is private."""
    folders = (settings.model_folder, settings.output_dir / "logs", settings.shared_dir)
    writable = tuple(folder.resolve() for folder in folders if folder is not None)
    readable = (*readable_folders(), prepared.bundle)
    if sandbox == "none":
        return Access(readable, writable, scratch)
    private = (settings.input_data_dir, settings.cache_dir or default_cache_dir(), *secrets())
    access = accessible(readable, writable, scratch, private=private, output=settings.output_dir)
    check_names(
        settings, sandbox, access, (f for each in prepared.images.values() for f in each.dataset.files)
    )
    return replace(access, sealed=settings.sandbox == "strict")


def check_names(settings: IngestionSettings, sandbox: Sandbox, access: Access, files: Iterable[Path]) -> None:
    """InputError where a strict run cannot hide the names of the dataset's `files`, and these tell classes: Landlock
    shows names and sizes within folders that a submission may list."""
    if settings.sandbox != "strict" or sandbox != "landlock" or len({file.parent for file in files}) < 2:
        return
    listed = [PACKAGE_ROOT, *(folder for folder in access.readable if access.masked(folder))]
    data = settings.input_data_dir.resolve()
    if around := [folder for folder in listed if data.is_relative_to(folder.resolve())]:
        raise InputError(
            f"--sandbox strict: dataset {data}: lies in {around[0]}, in which Landlock shows names and sizes of "
            "files, and its folders are named after classes; move it elsewhere, or install bubblewrap"
        )


def plan_launches(
    access: Access, sandbox: Sandbox, limits: Limits, test: TestSpec, log: SubmissionLog, gpu: GpuMeter | None
) -> LaunchPlan:
    """How each process is started and watched. Makes the scratch folder."""
    access.scratch.mkdir()
    given: dict[Inode, int] = {}
    model_dir, logs, *shared = access.writable
    variables = contract_variables(limits, model_dir, test, *shared)
    variables |= allocator_variables(limits.memory_bytes)
    if is_offline(sandbox):
        variables["HF_HUB_OFFLINE"] = "1"  # tells clients not to try
    if gpu is not None:
        variables |= gpu.variables()
    memory = MemoryMeter(given, private=sandbox == "bubblewrap") if sys.platform == "linux" else None
    return LaunchPlan(
        sandbox=sandbox,
        access=access,
        model_dir=model_dir,
        environment=child_environment(access.scratch, variables),
        memory_bytes=limits.memory_bytes,
        memory=memory,
        disk=DiskMeter((model_dir, logs, access.scratch), given),
        given=given,
        log=log,
        gpu=gpu,
    )
