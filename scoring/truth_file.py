"""The format "autometa-truth-1", checked field by field. Slow to import, so `truth` imports it only to read a
file."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scoring.errors import TruthError

_Name = Annotated[str, Field(min_length=1, max_length=500)]
_Count = Annotated[int, Field(ge=1, le=2**31)]


class TruthRow(BaseModel):
    """One task: `labels` [n_query], each in 0 … `ways`-1."""

    model_config = ConfigDict(strict=True, frozen=True)

    task: _Count
    dataset: _Name
    ways: Annotated[int, Field(ge=2, le=100_000)]
    shots: _Count
    labels: Annotated[list[int], Field(min_length=1)]

    @model_validator(mode="after")
    def _labels_are_ways(self) -> Self:
        for position, label in enumerate(self.labels):
            if not 0 <= label < self.ways:
                raise ValueError(f"labels[{position}] is {label}, not in 0 … {self.ways - 1}")
        return self


class TruthFile(BaseModel):
    """A whole truth file."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: Literal["autometa-truth-1"]
    seed: Annotated[int, Field(ge=0)] | None = None
    datasets: list[_Name]
    tasks: Annotated[list[TruthRow], Field(min_length=1)]

    @model_validator(mode="after")
    def _tasks_are_distinct_and_known(self) -> Self:
        if len(set(self.datasets)) != len(self.datasets):
            raise ValueError(f"datasets: a name appears twice in {self.datasets}")
        seen: set[int] = set()
        for position, row in enumerate(self.tasks):
            if row.task in seen:
                raise ValueError(f"tasks[{position}].task: task {row.task} appears twice")
            if row.dataset not in self.datasets:
                raise ValueError(f"tasks[{position}].dataset: {row.dataset!r} is not one of {self.datasets}")
            seen.add(row.task)
        return self


def parse_truth(data: bytes, path: Path) -> TruthFile:
    """Check the text of a truth file; raises TruthError naming `path` and the first wrong field."""
    try:
        return TruthFile.model_validate_json(data)
    except ValidationError as error:
        first, more = error.errors()[0], error.error_count() - 1
        where = _field(first["loc"])
        received = f" (received {first['input']!r:.80})" if where else ""
        others = f"; and {more} more" if more else ""
        raise TruthError(
            f"{path}: malformed truth: {f'field {where}: ' if where else ''}{first['msg']}{received}{others}"
        ) from None


def _field(location: tuple[int | str, ...]) -> str:
    """Write ("tasks", 3, "ways") as `tasks[3].ways`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")
