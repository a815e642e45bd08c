"""Trained copies of backbones that the runs of a grid of budgets share.

What a training gives depends on the seconds that it is given: rates fall over them. So a run takes over what an
earlier one has trained only where it would give about the same seconds and has the memory; it is charged what the
training took.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autometa.core import clock, journals
from autometa.core.budget import own_bytes, stopwatch
from autometa.core.files import hash_tensors, load_tensors, save_known
from autometa.core.repeated import repeated

ALIKE = 0.15
"""By how much the seconds that two trainings are given may differ, as a share."""
LOOK_EVERY_S = 0.2
JOURNAL = "trained.jsonl"

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Given:
    """What a training is given: seconds, and bytes of memory that are left."""

    seconds: float
    n_bytes: int


@dataclass(frozen=True)
class Trained:
    """A copy that an earlier run has trained: what the training was given, what it took, and the file."""

    given_s: float
    took_s: float
    took_bytes: int
    file: str

    def serves(self, given: Given) -> bool:
        """Whether a training that is given this much would have come to the same, about."""
        alike = abs(self.given_s - given.seconds) <= ALIKE * max(self.given_s, given.seconds)
        return alike and self.took_bytes <= given.n_bytes


class SharedTraining:
    """Copies in `folder`, by a description of what they were trained on and how (JSON values)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def train(
        self, description: Mapping[str, Any], given: Given, work: Callable[[], State]
    ) -> tuple[State, Trained | None]:
        """The state of a copy, and the earlier training where it was taken over. Errors of `work` as they come."""
        text = json.dumps(description, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        with clock.taking(0.0):
            fitting = [each for each in self._read(digest) if each.serves(given)]
        if fitting:
            best = min(fitting, key=lambda each: abs(each.given_s - given.seconds))
            with clock.taking(min(best.took_s, max(given.seconds, 0.0))):
                return load_tensors(self._folder, best.file), best
        elapsed, growth = stopwatch(), list[int]()
        with _watched(growth):
            state = work()
        with clock.taking(0.0):
            self._keep(digest, state, Trained(given.seconds, elapsed(), max(growth), ""))
        return state, None

    def _read(self, digest: str) -> list[Trained]:
        journals.cut_damaged_end(self._folder / JOURNAL)
        records = journals.read(self._folder / JOURNAL)
        return [
            Trained(**record["trained"])
            for record in records
            if record["digest"] == digest and (self._folder / record["trained"]["file"]).exists()
        ]

    def _keep(self, digest: str, state: State, trained: Trained) -> None:
        """A full disk is no failure: later runs train again."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = save_known(self._folder, "copy", hash_tensors(state), lambda: state)
            record = {"digest": digest, "trained": {**trained.__dict__, "file": name}}
            journals.append(self._folder / JOURNAL, record)
        except OSError:
            return


@contextmanager
def _watched(growth: list[int]) -> Iterator[None]:
    """Around work: afterwards `growth` holds by how many bytes memory has grown meanwhile, looked at now and then."""
    before = own_bytes()
    try:
        with repeated(lambda: growth.append(own_bytes() - before), LOOK_EVERY_S):
            yield
    finally:
        growth.append(own_bytes() - before)
