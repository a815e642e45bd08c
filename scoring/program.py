"""The scoring program: files in, files out, one call."""

import logging
from collections.abc import Sequence
from pathlib import Path

from scoring.errors import InputError, TruthError
from scoring.files import write_bytes, write_text
from scoring.material import Material, gather_material
from scoring.metrics import MAIN_METRIC, METRICS
from scoring.outputs import Result, details_json, prepare_folder, scores_json, scores_txt
from scoring.predictions import stray_files
from scoring.privacy import hide_classes, hide_names
from scoring.run_info import RunInfo, read_run_info
from scoring.settings import GroupScore, ScoreSummary, ScoringSettings
from scoring.summary import Group, TaskScore, score_tasks, summarise
from scoring.text import one_line
from scoring.truth import Truth, draw_truth, read_truth

_STRAYS_NAMED = 5


def score(settings: ScoringSettings) -> ScoreSummary:
    """Score the predictions in `settings.results_dir` and write everything to `settings.output_dir_scoring`.

    No prediction can make it fail: an unusable one scores as chance. Raises a ScoringError, before anything is
    changed, if the results folder or the truth cannot be used or the output folder must not be replaced. Raises
    OSError if writing fails.
    """
    if not settings.results_dir.is_dir():
        raise InputError(f"--results_dir: {settings.results_dir} is not a folder")
    named, run = _obtain_truth(settings), read_run_info(settings.results_dir)
    truth, run = _hide(settings, named, run)
    metrics = METRICS if settings.debug_mode else (MAIN_METRIC,)
    tasks = score_tasks(settings.results_dir, truth, run, metrics)
    material = gather_material(settings, named, truth, run, tasks)
    notes = (*run.notes, *material.notes, *_notes(settings.results_dir, truth, run, tasks))
    result = Result(summarise(tasks), tasks, metrics, run, truth.seed, notes)
    prepare_folder(
        settings.output_dir_scoring, _inputs(settings), overwrite=settings.overwrite_previous_results
    )
    return _write(result, material, settings.output_dir_scoring)


def _hide(settings: ScoringSettings, truth: Truth, run: RunInfo) -> tuple[Truth, RunInfo]:
    """What may be shown of the truth and of the run."""
    if settings.private_information:
        return hide_names(truth, run)
    return truth, hide_classes(run) if settings.hide_samples else run


def _obtain_truth(settings: ScoringSettings) -> Truth:
    if settings.truth is not None:
        return read_truth(settings.truth, follow_link=True)
    path = settings.results_dir / "truth.json"
    if path.exists() or path.is_symlink():
        return read_truth(path)
    if settings.input_data_dir is not None:
        return draw_truth(settings.input_data_dir, settings.seed, settings.test_tasks_per_dataset)
    raise TruthError(
        f"{path}: there is no such file. Either pass --truth=FILE, the truth.json that our ingestion program "
        "wrote, or, for the output of the original ingestion program, pass --input_data_dir=DIR (and its "
        "--seed and --test_tasks_per_dataset) to draw the truth again"
    )


def _inputs(settings: ScoringSettings) -> list[Path]:
    paths = (settings.results_dir, settings.truth, settings.input_data_dir)
    return [path for path in paths if path is not None]


def _notes(results_dir: Path, truth: Truth, run: RunInfo, tasks: Sequence[TaskScore]) -> list[str]:
    """Notes on what does not fit together, although every task has a score."""
    notes = []
    strays = stray_files(results_dir, frozenset(task.task for task in truth.tasks))
    if strays:
        named = ", ".join(one_line(ascii(name), 60) for name in strays[:_STRAYS_NAMED])
        more = f" and {len(strays) - _STRAYS_NAMED} more" if len(strays) > _STRAYS_NAMED else ""
        notes.append(f"prediction files of no known task, ignored: {named}{more}")
    if run.datasets and run.tasks_per_dataset and run.datasets * run.tasks_per_dataset != len(tasks):
        notes.append(
            f"metadata_ingestion says {run.datasets:g} datasets with {run.tasks_per_dataset:g} tasks "
            f"each, the truth of {len(tasks)} tasks"
        )
    malformed = sum(task.status == "malformed" for task in tasks)
    if 2 * malformed > len(tasks):
        notes.append(
            "most predictions are malformed: do they answer these tasks? Seed, number of tasks and data of "
            "the truth must be those of the ingestion"
        )
    failed_once = [task.task for task in tasks if task.status == "ok" and task.task in run.failures]
    notes += [
        f"task {task} was scored, though ingestion reported: {run.failures[task]}" for task in failed_once
    ]
    return notes


def _write(result: Result, material: Material, folder: Path) -> ScoreSummary:
    from scoring.report import render_report  # noqa: PLC0415  (jinja2 is slow to import)

    write_text(folder / "scores.json", scores_json(result))
    write_text(folder / "scores.txt", scores_txt(result))
    write_text(folder / "details.json", details_json(result))
    notes = _write_plots(result, folder / "plots")
    page = render_report(result, material, (*result.notes, *notes))
    for name in ("report.html", "detailed_results.html"):
        write_text(folder / name, page)
    return ScoreSummary(
        overall=_public(result.summary.overall),
        datasets=tuple(map(_public, result.summary.datasets)),
        duration_s=result.run.duration_s,
        time_budget_s=result.run.time_budget_s,
        notes=(*result.notes, *notes),
        output_dir=folder,
        report=folder / "report.html",
    )


def _write_plots(result: Result, folder: Path) -> list[str]:
    """Draw and write the plots. Scores do not need them, so a failure only becomes a note."""
    try:
        logging.getLogger("matplotlib").setLevel(
            logging.ERROR
        )  # else it tells at length that a user has no home
        from scoring.plots import draw_plots, draw_reliability  # noqa: PLC0415  (matplotlib is slow to import)

        plots = draw_plots(result.tasks, result.summary, result.metrics)
        reliability = result.summary.overall.reliability
        if result.calibration and reliability.queries:
            plots["reliability.png"] = draw_reliability(reliability)
    except (ImportError, ValueError, RuntimeError) as error:
        return [f"the plots could not be drawn: {type(error).__name__}: {error}"]
    folder.mkdir(exist_ok=True)
    for name, data in plots.items():
        write_bytes(folder / name, data)
    return []


def _public(group: Group) -> GroupScore:
    main = group.estimates[MAIN_METRIC.key]
    return GroupScore(group.name, main.mean, main.ci95, group.tasks, group.missing, dict(group.estimates))
