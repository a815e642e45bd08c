"""`competition.zip`: a competition for Codabench from a dataset."""

from __future__ import annotations

import datetime
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from autometa.bundles import pages, programs
from autometa.bundles.archive import Content, size_text, write_zip
from autometa.bundles.competition_check import check_competition
from autometa.bundles.competition_tasks import Drawn, contents, draw_competition, sound_source
from autometa.bundles.errors import BundleError
from autometa.bundles.logo import draw_logo
from autometa.bundles.yaml_text import yaml_text
from ingestion.doubles import set_doubles_aside
from ingestion.sources import read_source, summarise
from ingestion.splits import Split, split_source
from ingestion.tasks import TaskConfig
from scoring.text import natural_key

MARGIN_S = 60
"""Seconds between the end of the time budget and that of the platform, which uploads nothing after its own."""
DEFAULT_QUEUE_S = 600
"""The default queue ends every run after so long."""
LARGEST_LEADERBOARD = 30
"""Datasets that get a column."""
FINAL_DAYS = 7
PAGES = ("overview", "evaluation", "data", "terms")


@dataclass(frozen=True)
class Plan:
    """What the competition is like. `tasks`: for each test dataset; `query_per_class` None: 20, or fewer where
    classes are small; `start`: an ISO date, today by default; `days`: of the first phase; `image`: a Docker image."""

    title: str = "Few-shot image classification"
    time_budget_s: float = 540.0
    tasks: int = 20
    query_per_class: int | None = None
    seed: int = 93
    start: str = ""
    days: int = 60
    queue: str = ""
    image: str = ""
    px: int = 128

    def dates(self) -> list[str]:
        """Start and end of the first phase, start and end of the second. BundleError if `start` is no date."""
        try:
            first = datetime.date.fromisoformat(self.start) if self.start else datetime.date.today()
        except ValueError as problem:
            raise BundleError(f"--start {self.start}: is no date; write it as 2027-01-31") from problem
        try:
            last = first + datetime.timedelta(days=self.days)
            final = last + datetime.timedelta(days=1)
            end = final + datetime.timedelta(days=FINAL_DAYS)
        except OverflowError as problem:
            raise BundleError(f"--days {self.days}: ends after the year 9999; give fewer days") from problem
        return [f"{day.isoformat()} 00:00:00" for day in (first, last, final, end)]


@dataclass
class Competition:
    """A competition that was made."""

    archive: Path
    size_bytes: int
    datasets: list[str]
    tasks: int
    notes: list[str] = field(default_factory=list)


def make_competition(dataset: Path, archive: Path, plan: Plan, *, overwrite: bool = False) -> Competition:
    """Draw the tasks of both phases from `dataset`, as ingestion would read it, and write the bundle.

    InputError if the dataset cannot be used; BundleError if the plan cannot, or the zip file cannot be written.
    """
    limit_s = math.ceil(plan.time_budget_s) + MARGIN_S
    if limit_s > DEFAULT_QUEUE_S and not plan.queue:
        raise BundleError(
            f"--time-budget {plan.time_budget_s:g}s: the default queue ends a run after {DEFAULT_QUEUE_S} s, "
            f"of which {MARGIN_S} are for start and upload; give at most {DEFAULT_QUEUE_S - MARGIN_S}s, or --queue"
        )
    split, notes = _split(dataset, plan)
    phases = [draw_competition(split, plan.tasks, plan.seed, phase=number) for number in range(2)]
    names = sorted((part.name for part in split.test), key=natural_key)
    if not plan.image:
        notes.append(
            "no --image: the default image of the platform lacks torch; build the Dockerfile, push it, and name it"
        )
    with tempfile.TemporaryDirectory(prefix="autometa-competition-") as scratch:
        random = Path(scratch) / "random.zip"
        write_zip(random, programs.bundle_contents("random"), overwrite=True)
        description = yaml_text(_description(plan, names, limit_s))
        files: list[tuple[str, Content]] = [
            ("competition.yaml", description.encode()),
            ("logo.png", draw_logo()),
            ("solutions/random.zip", random),
            *_pages(plan, split, phases[0], names),
            *_programs(plan),
            *_data(phases),
        ]
        size = write_zip(archive, files, overwrite=overwrite, check=partial(_refuse_unsound, archive))
    return Competition(archive, size, names, sum(len(phase.content.tasks) for phase in phases), notes)


def _refuse_unsound(archive: Path, written: Path) -> None:
    """Before what was written becomes the archive: what was there stays where it is not sound."""
    if problems := check_competition(written):
        raise BundleError(f"-o {archive}: is not written, since its check finds: {problems[0]}")


def _split(dataset: Path, plan: Plan) -> tuple[Split, list[str]]:
    single = set_doubles_aside(read_source(dataset), draws_anew=True)
    source, lines = sound_source(single)
    notes = [*summarise(single.notes), *lines]
    config = TaskConfig(query_images_per_class=plan.query_per_class or 20)
    split = split_source(source, config, seed=plan.seed, auto_queries=plan.query_per_class is None)
    return split, [*notes, *(f"set aside: {line}" for line in split.set_aside)]


def _description(plan: Plan, datasets: list[str], limit_s: int) -> dict[str, Any]:
    named: dict[str, Any] = {"docker_image": plan.image} if plan.image else {}
    named |= {"queue": plan.queue} if plan.queue else {}
    return {
        "version": 2,
        "title": plan.title,
        "description": "Few-shot image classification under a time budget",
        "image": "logo.png",
        "terms": "pages/terms.md",
        **named,
        "enable_detailed_results": True,
        "pages": [{"title": page.capitalize(), "file": f"pages/{page}.md"} for page in PAGES[:-1]],
        "tasks": [_task(index) for index in range(2)],
        "solutions": [{"index": 0, "tasks": [0], "path": "solutions/random.zip"}],
        "phases": _phases(plan, limit_s),
        "leaderboards": [_leaderboard(datasets)],
    }


def _task(index: int) -> dict[str, Any]:
    return {
        "index": index,
        "name": ("Development", "Final")[index],
        "ingestion_program": "ingestion_program",
        "scoring_program": "scoring_program",
        "input_data": f"input_data_{index}",
        "reference_data": f"reference_data_{index}",
    }


def _phases(plan: Plan, limit_s: int) -> list[dict[str, Any]]:
    dates = plan.dates()
    shared = {"execution_time_limit": limit_s, "hide_prediction_output": False}
    first = {"index": 0, "name": "Development", "start": dates[0], "end": dates[1], "tasks": [0]}
    final = {"index": 1, "name": "Final", "start": dates[2], "end": dates[3], "tasks": [1]}
    first |= {"max_submissions": 100, "max_submissions_per_day": 5, "starting_kit": "starting_kit"}
    final |= {"max_submissions": 2, "max_submissions_per_day": 2, "auto_migrate_to_this_phase": True}
    return [first | shared, final | shared]


def _leaderboard(datasets: list[str]) -> dict[str, Any]:
    columns: list[dict[str, Any]] = [
        {"title": "Normalized accuracy", "key": "normalized_accuracy", "sorting": "desc", "precision": 4},
        {"title": "95 % interval", "key": "normalized_accuracy_ci95", "sorting": "asc", "precision": 4},
        {"title": "Tasks not answered", "key": "tasks_missing", "sorting": "asc", "precision": 0},
        {"title": "Seconds", "key": "duration_s", "sorting": "asc", "precision": 0},
    ]
    for number, name in enumerate(datasets[:LARGEST_LEADERBOARD], start=1):
        columns.append({"title": name[:36], "key": f"dataset_{number}", "sorting": "desc", "precision": 4})
    for index, column in enumerate(columns):
        column["index"] = index
    return {"title": "Results", "key": "results", "submission_rule": "Force_Best", "columns": columns}


def _pages(plan: Plan, split: Split, drawn: Drawn, datasets: list[str]) -> Iterator[tuple[str, Content]]:
    config = drawn.content.test_config
    minutes = f"{plan.time_budget_s / 60:g}"
    rows = [(part.name, f"{len(part.class_names)} classes", "") for part in split.train]
    rows += [(part.name, "", f"{len(part.class_names)} classes") for part in split.test]
    texts = {
        "overview": pages.OVERVIEW.format(
            title=plan.title, minutes=minutes, tasks=len(drawn.content.tasks), datasets=len(datasets)
        ),
        "evaluation": pages.evaluation_page(
            datasets,
            f"{config.min_N} to {config.max_N}",
            f"{config.min_k} to {config.max_k}",
            config.query_images_per_class,
        ),
        "data": pages.data_page(rows, plan.px),
        "terms": pages.TERMS,
    }
    yield from ((f"pages/{name}.md", text.encode()) for name, text in texts.items())


def _programs(plan: Plan) -> Iterator[tuple[str, Content]]:
    commands = {
        "ingestion": programs.ingestion_command(plan.time_budget_s, plan.px),
        "scoring": programs.scoring_command(),
    }
    for package, command in commands.items():
        yield from programs.within(f"{package}_program", programs.program_contents(package, command))
    yield from programs.within("starting_kit", programs.kit_contents(plan.time_budget_s))
    yield from programs.image_contents()


def _data(phases: list[Drawn]) -> Iterator[tuple[str, Content]]:
    for index, drawn in enumerate(phases):
        yield from programs.within(f"input_data_{index}", contents(drawn))
        yield f"reference_data_{index}/truth.json", json.dumps(drawn.truth).encode()


def lines_of(made: Competition) -> Iterator[str]:
    """The outcome for people."""
    yield from (f"note: {note}" for note in made.notes)
    size, datasets = size_text(made.size_bytes), ", ".join(made.datasets)
    yield f"{made.archive}: {size}, {made.tasks} tasks in two phases, of {datasets}"
