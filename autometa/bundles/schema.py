"""What Codabench takes as `competition.yaml`: names, lengths and rules as its unpacker checks them (v1.25)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Place = Annotated[int, Field(ge=0)]
Path = Annotated[str, Field(min_length=1)]


def _read_date(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("put the date in quotes, or its time of day is lost")
    try:
        read = datetime.fromisoformat(value)
    except ValueError as problem:
        raise ValueError(f"{value} is no date like 2027-01-31 12:00:00") from problem
    return read if read.tzinfo else read.replace(tzinfo=UTC)  # as the platform takes them


Date = Annotated[datetime, BeforeValidator(_read_date)]


class _Block(BaseModel):
    """Codabench has more keys than these."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Page(_Block):
    """A page of the competition."""

    title: Annotated[str, Field(min_length=1)]
    file: Path


class Task(_Block):
    """What a submission is run on: programs and data, each a zip file, a folder or the key of an existing one."""

    index: Place
    key: str | None = None
    name: str | None = None
    scoring_program: Path | None = None
    ingestion_program: Path | None = None
    input_data: Path | None = None
    reference_data: Path | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.key is None and not (self.name and self.scoring_program):
            raise ValueError("needs the `key` of an existing task, or `name` and `scoring_program`")
        return self


class Phase(_Block):
    """A time in which submissions are taken. `execution_time_limit` in seconds."""

    name: Annotated[str, Field(min_length=1)]
    start: Date
    end: Date | None = None
    tasks: Annotated[list[Place], Field(min_length=1)]
    max_submissions: Annotated[int, Field(ge=1)] = 100
    max_submissions_per_day: Annotated[int, Field(ge=1)] = 5
    execution_time_limit: Annotated[int, Field(ge=1)] = 600
    auto_migrate_to_this_phase: bool = False
    hide_output: bool = False
    hide_prediction_output: bool = False
    hide_score_output: bool = False
    starting_kit: Path | None = None
    public_data: Path | None = None

    @model_validator(mode="after")
    def _runs_forward(self) -> Self:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"phase `{self.name}` ends before it starts")
        return self


class Column(_Block):
    """A column of the leaderboard; `key` is that of a number in `scores.json`."""

    title: Annotated[str, Field(min_length=1, max_length=36)]
    key: Annotated[str, Field(min_length=1, max_length=36)]
    index: Place
    sorting: Literal["asc", "desc"] = "desc"
    computation: Literal["avg", "sum", "min", "max"] | None = None
    computation_indexes: list[Place] = []
    precision: Annotated[int, Field(ge=0)] = 2


class Leaderboard(_Block):
    """A table of scores; Codabench heeds only the first."""

    title: Annotated[str, Field(min_length=1, max_length=64)]
    key: Annotated[str, Field(min_length=1, max_length=36)]
    submission_rule: Literal[
        "Add", "Add_And_Delete", "Add_And_Delete_Multiple", "Force_Last", "Force_Latest_Multiple", "Force_Best"
    ] = "Add"  # fmt: skip
    columns: Annotated[list[Column], Field(min_length=1)]

    @model_validator(mode="after")
    def _columns_are_distinct(self) -> Self:
        indexes = [column.index for column in self.columns]
        _refuse_repeats(indexes, "index of a column")
        _refuse_repeats([column.key for column in self.columns], "key of a column")
        if 0 not in indexes:
            raise ValueError("no column has index 0, which is the one that ranks")
        for column in self.columns:
            if column.computation and not set(column.computation_indexes) <= set(indexes) - {column.index}:
                raise ValueError(f"column `{column.key}` is computed from columns that do not exist")
        return self


class Solution(_Block):
    """A submission that comes along, for these tasks."""

    index: Place
    tasks: Annotated[list[Place], Field(min_length=1)]
    path: Path | None = None
    key: str | None = None

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if not self.path and not self.key:
            raise ValueError("needs a `path` or a `key`")
        return self


class Competition(_Block):
    """The whole file."""

    version: Literal[2]
    title: Annotated[str, Field(min_length=1, max_length=256)]
    image: Path
    terms: Path
    pages: Annotated[list[Page], Field(min_length=1)]
    tasks: Annotated[list[Task], Field(min_length=1)]
    phases: Annotated[list[Phase], Field(min_length=1)]
    leaderboards: Annotated[list[Leaderboard], Field(min_length=1)]
    solutions: list[Solution] = []
    docker_image: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    enable_detailed_results: bool = False
    queue: str | None = None

    @model_validator(mode="after")
    def _tasks_are_known(self) -> Self:
        known = [task.index for task in self.tasks]
        _refuse_repeats(known, "index of a task")
        named = [owner.tasks for owner in self.phases] + [owner.tasks for owner in self.solutions]
        for tasks in named:
            if unknown := set(tasks) - set(known):
                raise ValueError(f"no task has the index {min(unknown)}")
        return self

    @model_validator(mode="after")
    def _phases_follow_each_other(self) -> Self:
        if self.phases[0].auto_migrate_to_this_phase:
            raise ValueError("the first phase cannot have auto_migrate_to_this_phase")
        for phase, following in zip(self.phases, self.phases[1:], strict=False):
            if phase.end is None:
                raise ValueError(f"phase `{phase.name}` needs an end: only the last may lack it")
            if following.start <= phase.end:
                raise ValueError(f"phase `{following.name}` has to start after the end of `{phase.name}`")
        return self


def _refuse_repeats(values: list[int] | list[str], what: str) -> None:
    if repeated := [value for value in values if values.count(value) > 1]:  # type: ignore[arg-type]
        raise ValueError(f"the {what} {repeated[0]} appears twice")
