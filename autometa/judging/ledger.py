"""The ledger of a judging: a file of JSON lines, one for each run that is done, which a later start goes on with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from autometa.core.errors import AutometaError, ConfigError
from autometa.core.identities import CommonIdentity
from autometa.core.journals import append, cut_damaged_end, damaged_inside, parse

Model = TypeVar("Model", bound=BaseModel)


class LedgerFull(AutometaError):
    """The ledger cannot be written. The message names the file and the fix."""


class Identity(CommonIdentity):
    """What all runs of a judging have in common: the first line of the ledger."""

    format: Literal["autometa-judging-1"] = "autometa-judging-1"


class Row(BaseModel):
    """A run that is done. `accuracies`: normalised accuracy of every task; empty where it was not scored, and then
    every task counts as chance. `wall_s`: from outside, from the start of the program to its end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    submission: str
    seed: int
    digest: str
    status: Literal["ok", "failed"]
    reason: str = ""
    exit_status: int = 0
    accuracies: tuple[float, ...] = ()
    drawn: str = ""
    unanswered: int = 0
    wall_s: float = 0.0
    machine: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What tells units apart."""
        return self.submission, self.seed


class Ledger:
    """The file of one judging; it is used by one program at a time. A later line about a unit replaces an earlier
    one."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.cut_bytes = 0
        """What a kill had left half written, cut off by `tidy`."""

    def open(self, identity: Identity) -> None:
        """Begin the file, or go on with one. ConfigError if it is of another judging or damaged in the middle."""
        self.tidy()
        if (there := self.identity()) is None:
            self._append(identity)
            return
        identity.refuse_other(there, str(self.file))

    def tidy(self) -> None:
        """Cut off what a kill has left half written. ConfigError where whole lines follow a damaged one: no run that
        is done is lost without a word."""
        if (number := damaged_inside(self.file)) is not None:
            raise self._damage(number)
        self.cut_bytes += cut_damaged_end(self.file)

    def identity(self) -> Identity | None:
        """What the runs in the file have in common; None where nothing is in it."""
        for number, line in self._lines():
            return self._parsed(Identity, number, line)
        return None

    def rows(self) -> dict[tuple[str, int], Row]:
        """The runs that are done, in the order of their ends, without those that were repeated."""
        found: dict[tuple[str, int], Row] = {}
        for number, line in self._lines():
            if number > 1:
                row = self._parsed(Row, number, line)
                found.pop(row.key, None)
                found[row.key] = row
        return found

    def add(self, row: Row) -> None:
        """Keep a run that is done, at once. LedgerFull where that cannot be; no part of it is left then."""
        self._append(row)

    def _append(self, model: BaseModel) -> None:
        try:
            append(self.file, model.model_dump(mode="json"))
        except OSError as error:
            raise LedgerFull(
                f"{self.file}: cannot be written ({error.strerror}); free space there, then add --resume"
            ) from error

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        if self.file.exists():
            with self.file.open("rb") as stream:
                yield from enumerate(stream, start=1)

    def _parsed(self, model: type[Model], number: int, line: bytes) -> Model:
        try:
            return model.model_validate(parse(line))
        except ValidationError as error:
            raise self._damage(number) from error

    def _damage(self, number: int) -> ConfigError:
        fix = (
            "restore it, since it tells what all runs have in common"
            if number == 1
            else "delete the line, so that its run is repeated"
        )
        return ConfigError(
            f"{self.file}, line {number}: damaged, or of another version; {fix}, or add --overwrite"
        )
