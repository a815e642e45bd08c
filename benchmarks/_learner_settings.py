"""What results of `learners.py` depend on, and which classes they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from _learner_data import Dataset, load, prepared

from autometa.learners.encoder import EncoderSpec
from ingestion import InputError
from ingestion.class_splits import VALID, ClassSplit, read_class_split


@dataclass(frozen=True)
class Settings:
    """What a result depends on besides its unit: seconds of training, its seeds, numbers of tasks and steps.
    `steps`, `meta_batch`: of a long training, whose state is kept in `checkpoints`; `channels` of networks from
    scratch; `inner_steps` of gradient-based learners."""

    data: Path
    seconds: float
    seeds: tuple[int, ...]
    tests: int
    validations: int
    reference_steps: int
    ways: int
    shots: int
    steps: int | None = None
    meta_batch: int | None = None
    channels: int | None = None
    inner_steps: int | None = None
    checkpoints: Path | None = None
    split: ClassSplit | None = None
    rotates: bool = False

    def __str__(self) -> str:
        form = f"{self.ways} ways, {self.shots} shots"
        form += f", class split {self.split.digest}" if self.split else ""
        form += ", rotations as classes" if self.rotates else ""
        form += "" if self.steps is None else f", {self.steps} steps"
        form += "" if self.meta_batch is None else f", {self.meta_batch} episodes a step"
        form += "" if self.channels is None else f", {self.channels} channels"
        form += "" if self.inner_steps is None else f", {self.inner_steps} inner steps"
        return f"{form}, {self.seconds:g} s, seeds {self.seeds}, {self.tests} + {self.validations} tasks"

    def training(self) -> dict[str, Any]:
        """What is asked of a training: its steps, which patience does not cut short, and episodes of each."""
        long = {} if self.steps is None else {"max_steps": self.steps, "patience": None}
        return long if self.meta_batch is None else {**long, "meta_batch": self.meta_batch}

    def dataset(self, name: str) -> Dataset:
        """A dataset with tasks of this form, and with the classes of the split. InputError where they do not fit."""
        data = replace(load(self.data / name), ways=self.ways, shots=self.shots, rotates=self.rotates)
        return divide(data, self.split) if self.split else data

    def inputs(self, name: str, spec: EncoderSpec) -> torch.Tensor:
        """The images of a dataset as inputs of an encoder."""
        rotated = tuple(self.dataset(name).fit.tolist()) if self.rotates else ()
        return prepared(self.data / name, spec, rotated)


def divide(data: Dataset, split: ClassSplit) -> Dataset:
    """The dataset with the classes of a split instead of shares of all. InputError where it lacks one of them, or the
    split has none to validate on."""
    name = data.pool.datasets[0]
    if not split.validation:
        raise InputError(
            f"class split: no class to validate on, which learners of {name} need; name some of meta-train as "
            f"{VALID}"
        )
    fit, validation, test = split.ids_in(data.class_names, name)
    return replace(data, fit=fit, validation=validation, test=test)


def split_of_one(file: Path | None, datasets: Sequence[str]) -> ClassSplit | None:
    """The class split in a file. InputError where it cannot be read, or there is not just one dataset."""
    if file is not None and len(datasets) != 1:
        raise InputError(
            f"--class-split {file}: is for one dataset, not for {', '.join(datasets)}; name it with --datasets"
        )
    return None if file is None else read_class_split(file)
