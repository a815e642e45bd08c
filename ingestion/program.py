"""One ingestion from start to end."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingestion.access import Access
from ingestion.cgroups import count_cores
from ingestion.confinement import describe_confinement
from ingestion.contract import Limits, meta_test_reserve_s
from ingestion.disk import clear
from ingestion.errors import InputError
from ingestion.gpu import has_cuda_device, lacks_device
from ingestion.gpu_memory import Card, GpuMeter
from ingestion.launch import access_of, choose_for, plan_launches
from ingestion.meta_test import MetaTest
from ingestion.meta_train import Beside, has_learner, meta_train
from ingestion.outputs import (
    LOG_FILE,
    TRUTH_FILE,
    Reserve,
    machine_summary,
    write_atomically,
    write_environment,
    write_missing,
    write_truth,
)
from ingestion.prepare import Prepared, prepare
from ingestion.process import LaunchPlan
from ingestion.process_tree import adopt_orphans
from ingestion.record import write_record
from ingestion.result import IngestionResult
from ingestion.resume import claim_output, earlier_image_size, resume_line
from ingestion.samples import write_samples
from ingestion.sandbox import Sandbox
from ingestion.settings import Event, IngestionSettings, OnEvent, print_event
from ingestion.stages import take_stages
from ingestion.submission_log import SubmissionLog
from ingestion.terminal import first_interrupt
from ingestion.watch import descendants, end_strays, require_process_table

MOST_NOTED = 10**6
"""Characters of all notes and failures that are kept in the record, which scoring reads up to 8 MiB of."""
MUCH_DECODING = 0.25
"""Share of the time budget from which on decoding is named as a reason where time runs out."""


def run(
    settings: IngestionSettings,
    on_event: OnEvent = print_event,
    *,
    overwrite: bool = False,
    resume: bool = False,
    on_claimed: Callable[[], None] = lambda: None,
) -> IngestionResult:
    """Meta-train and meta-test the submission within the limits and write everything that scoring needs.

    `resume`: keep what an earlier run of the same kind saved in the model folder, so that the submission can
    continue it. `on_claimed`: called once the inputs are sound and the results of an earlier run are gone. Raises
    InputError before anything runs; failures of the submission are recorded, never raised.
    """
    if overwrite and resume:
        raise InputError("overwrite would delete what resume continues; give only one of them")
    if resume and settings.predictions_only:
        raise InputError(
            "predictions_only keeps no learner that resume could continue; give only one of them"
        )
    require_process_table()
    adopt_orphans()
    notes: list[str] = []

    def watch(event: Event) -> None:
        if event.kind in ("note", "failure") and sum(map(len, notes)) < MOST_NOTED:
            notes.append(event.text)
        on_event(event)

    with tempfile.TemporaryDirectory(prefix="ingestion-") as folder:
        settings = _settle(settings, Path(folder), resume=resume)
        prepared = prepare(settings, Path(folder), watch)
        sandbox, line = choose_for(settings)
        access = access_of(settings, prepared, sandbox, Path(folder) / "scratch")
        gpu = _meter_gpu(settings, prepared, watch)
        resumed = claim_output(settings, prepared, overwrite=overwrite, resume=resume)
        on_claimed()
        if resume:
            watch(Event("note", resume_line(settings.output_dir, resumed=resumed)))
        watch(Event("note", line))
        result = IngestionResult(settings.output_dir, len(prepared.draws), notes=notes)
        result.seconds["prepare"] = time.monotonic() - settings.started - prepared.decode_s
        result.seconds["decode"] = prepared.decode_s
        result = _Run(settings, prepared, sandbox, access, watch, result, gpu).complete()
        clear(Path(folder))  # a submission may leave folders that are too deep for Python to delete
        return result


def _settle(settings: IngestionSettings, folder: Path, *, resume: bool) -> IngestionSettings:
    """The settings with what is open in them: where a learner lies that nobody keeps, in the run's own `folder`, and
    the size of the images of the run that is continued."""
    if settings.predictions_only:
        settings = settings.model_copy(update={"model_dir": folder / "model"})
    if resume and settings.image_size == "auto" and (px := earlier_image_size(settings.output_dir)):
        settings = settings.model_copy(update={"image_size": px})  # free memory may be another one today
    return settings


def _meter_gpu(settings: IngestionSettings, prepared: Prepared, on_event: OnEvent) -> GpuMeter | None:
    """What watches the budget of GPU memory; None where there is no GPU, or none that tells. InputError for a budget
    that leaves nothing to compute with."""
    if not has_cuda_device():
        return None
    budget, processes = settings.gpu_memory_budget_bytes, 2 if prepared.standby else 1
    meter = GpuMeter.of(Card.find(), budget, processes)
    if budget and meter is None:
        on_event(Event("note", "the budget of GPU memory is told, but not watched: NVML is not there"))
    return meter


@dataclass
class _Run:
    settings: IngestionSettings
    prepared: Prepared
    sandbox: Sandbox
    access: Access
    on_event: OnEvent
    result: IngestionResult
    gpu: GpuMeter | None
    machine: dict[str, Any] = field(default_factory=machine_summary)
    log: SubmissionLog = field(init=False)

    def complete(self) -> IngestionResult:
        """Both phases, then the files. Ctrl-C ends meta-training; both phases where nothing was saved, or when it
        comes again. What is done is kept."""
        output_dir = self.settings.output_dir
        with Reserve.in_folder(output_dir, self.prepared.draws) as reserve:
            write_environment(output_dir, self.machine)
            self._write_settings()
            if self.sandbox != "none":
                self._write_truth()  # out of reach of the submission; it lets a killed run be scored
            self._run_phases()
            with first_interrupt():  # what is done is kept
                reserve.release()
                self._write_results()
        return self.result

    def _run_phases(self) -> None:
        output_dir = self.settings.output_dir
        if decoding := self._told_of_decoding():
            self.on_event(Event("note", decoding))
        self.log = SubmissionLog(output_dir / LOG_FILE, lambda line: self.on_event(Event("line", line)))
        try:
            self._train_and_test()
        except KeyboardInterrupt:
            self.result.interrupted = True
            self.on_event(Event("failure", "interrupted"))
            done = {int(f.stem.removeprefix("task_")) for f in output_dir.glob("task_*.predict")}
            rest = set(range(1, self.result.tasks + 1)) - done - set(self.result.failures)
            self.result.fail(rest, "interrupted")
        finally:
            self.log.close()

    def _write_truth(self) -> None:
        if self.settings.predictions_only or self.prepared.drawn_before:
            return
        parts, draws = self.prepared.split.test, self.prepared.draws
        write_truth(self.settings.output_dir / TRUTH_FILE, parts, draws, self.settings.seed)

    def _train_and_test(self) -> None:
        limits = self._limits()
        plan = plan_launches(self.access, self.sandbox, limits, self.prepared.test_spec, self.log, self.gpu)
        before = descendants()
        about_gpu = ThreadPoolExecutor(1).submit(self._tell_of_gpu, plan)  # a driver may be slow
        if self.prepared.isolated or lacks_device():
            about_gpu.result()  # makes the device; later, its processes would be ended as left by a task
        test = MetaTest(
            self.prepared, plan, limits, self.settings.output_dir, self.on_event, self.result.failures, before
        )
        try:
            self._phases(plan, limits, test)
        finally:
            about_gpu.result()
            test.close()
            end_strays(lambda process: process.pid not in before)

    def _tell_of_gpu(self, plan: LaunchPlan) -> None:
        if line := plan.describe_gpu():
            self.on_event(Event("note", line))

    def _phases(self, plan: LaunchPlan, limits: Limits, test: MetaTest) -> None:
        settings, result = self.settings, self.result
        reason = self._too_late(limits)
        if not reason:
            self.on_event(Event("stage", "meta-train"))
            with result.timed("meta_train"):
                beside = Beside(test.warm_up() if self.prepared.standby else (), test.end_by)
                reason = meta_train(self.prepared, plan, limits, settings, self.on_event, beside=beside)
            if reason and (decoding := self._told_of_decoding()):
                reason = f"{reason}; {decoding}"
        if not has_learner(settings.model_folder):
            why = f"no learner was saved ({reason or 'save wrote no file'})"
            result.fail(range(1, result.tasks + 1), why)
            self.on_event(Event("failure", f"all tasks: {why}"))
            return
        self.on_event(Event("stage", "meta-test", total=result.tasks))
        with result.timed("meta_test"):
            test.run()

    def _too_late(self, limits: Limits) -> str:
        """Why there is no time to begin meta-training, or ""."""
        if limits.meta_train_deadline is None or time.monotonic() < limits.meta_train_deadline:
            return ""
        reason = "no time was left to begin meta-training"
        if decoding := self._told_of_decoding():
            reason = f"{reason}; {decoding}"
        self.on_event(Event("failure", reason))
        return reason

    def _told_of_decoding(self) -> str:
        """What decoding took, if it was much of the time budget."""
        budget, spent_s = self.settings.time_budget_s, self.prepared.decode_s
        if budget is None or spent_s < MUCH_DECODING * budget:
            return ""
        return f"decoding images took {spent_s:.0f} s of the {budget:.0f} s of the whole run"

    def _limits(self) -> Limits:
        settings, gpu, budget = self.settings, self.gpu, self.settings.time_budget_s
        gpu_bytes = gpu.limit_bytes if gpu else settings.gpu_memory_budget_bytes
        memory = settings.memory_budget_bytes, count_cores(), gpu_bytes
        if budget is None:
            return Limits(None, None, None, settings.max_time_s, *memory)
        closing_s = 0.75 + 0.003 * self.result.tasks  # to end the child and write the missing files
        deadline = settings.started + budget - closing_s
        isolated = self.prepared.isolated
        train_deadline = deadline - meta_test_reserve_s(budget, self.result.tasks, isolated=isolated)
        return Limits(budget, deadline, train_deadline, settings.max_time_s, *memory)

    def _write_settings(self) -> None:
        """`logs/experimental_settings.txt`: the settings and what they led to, without paths."""
        hidden = {
            "started", "input_data_dir", "output_dir", "cache_dir", "model_dir", "shared_dir", "submission",
            "class_split",
        }  # fmt: skip
        shown = self.settings.model_dump(mode="json", exclude=hidden) | {"sandbox used": self.sandbox}
        lines = [f"{name}: {value}" for name, value in shown.items()]
        prepared = self.prepared
        if prepared.class_split is not None:
            lines.append(f"class split: {prepared.class_split.digest}")
        for name, group in (
            ("train", prepared.train),
            ("valid", prepared.valid),
            ("test", prepared.split.test),
        ):
            lines += [f"{name}: {p.name}, {len(p.class_names)} classes, {len(p.rows)} images" for p in group]
        lines.append(f"test tasks: {prepared.split.test_config.model_dump_json()}")
        file = self.settings.output_dir / "logs" / "experimental_settings.txt"
        write_atomically(file, "\n".join(lines) + "\n")

    def _write_results(self) -> None:
        settings, prepared, result = self.settings, self.prepared, self.result
        folder = settings.output_dir
        for number in sorted(result.failures):
            write_missing(folder, number, prepared.draws[number - 1])
        self._write_truth()
        if reason := take_stages(settings.model_folder, folder):
            self.on_event(Event("note", reason))
        write_record(settings, prepared, result, self._used())
        if not prepared.drawn_before:  # their query labels are not known here
            write_samples(folder, prepared, self.on_event)

    def _used(self) -> dict[str, Any]:
        """What the record says of the machine and of the limits that held there."""
        gpu_bytes = self.gpu.limit_bytes if self.gpu else None
        confinement = describe_confinement(
            self.sandbox,
            sealed=self.access.sealed,
            limits_memory=self.settings.memory_budget_bytes is not None,
            isolates_tasks=self.prepared.isolated,
        )
        return {
            "sandbox": self.sandbox,
            "sandbox_asked": self.settings.sandbox,
            "isolate_tasks": self.prepared.isolated,
            "confinement": confinement.to_json(),
            "gpu_memory_budget_bytes": gpu_bytes,
            "gpu_peak_bytes": self.gpu.peak_bytes if self.gpu else None,
            "machine": self.machine,
        }
