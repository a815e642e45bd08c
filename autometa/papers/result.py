"""What came of a reproduction, and which one a folder holds: `result.json` and `reproduction.json`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autometa.core.errors import ConfigError
from autometa.core.files import read_versioned, write_model
from autometa.learners.training import STEPS_MADE
from autometa.papers.paper_data import PaperData
from autometa.papers.recipes import Achieved, PaperRecipe, Published

RESULT, IDENTITY = "result.json", "reproduction.json"
CHUNK = 1024
"""Images of a digest at a time: they may lie in a file."""


class Result(BaseModel):
    """`published` against `achieved`, and what the latter is of. `untrained`, `validation`: plain accuracy in % on
    the validation tasks before the training and of the state that was kept. `shortened`: it had other steps or fewer
    tasks than the recipe, also because the training ended early, so it says nothing about the paper."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["autometa-reproduction-result-1"] = "autometa-reproduction-result-1"
    recipe: str
    paper: str
    table: str
    data: str
    images: int
    classes: tuple[int, int, int]
    seed: int
    steps: int
    tasks: int
    shortened: bool
    published: Published
    achieved: Achieved
    untrained: float
    validation: float
    ended: str
    training_s: float
    device: str
    version: str

    @property
    def difference(self) -> float:
        """Achieved less published, in points."""
        return self.achieved.accuracy - self.published.accuracy

    @property
    def agrees(self) -> bool:
        """Whether both intervals meet; where the paper gives none, whether its figure lies in ours."""
        return abs(self.difference) <= self.achieved.interval + (self.published.interval or 0.0)

    def tell(self) -> list[str]:
        """Lines for people."""
        lines = [
            f"published: {self.published} %  ({self.paper}, {self.table})",
            f"achieved:  {self.achieved} %  ({self.tasks} tasks, seed {self.seed}, {self.steps} steps)",
        ]
        if self.shortened:
            early = self.ended not in ("", STEPS_MADE)
            why = (
                f"the training ended early ({self.ended})"
                if early
                else "other steps or fewer tasks than the recipe"
            )
            return [*lines, f"shortened: {why}, so this says nothing of the paper"]
        meet = "the intervals meet" if self.agrees else "the intervals do not meet"
        return [*lines, f"difference: {self.difference:+.2f} points, {meet}"]


def _digest(images: NDArray[np.uint8]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for start in range(0, len(images), CHUNK):
        digest.update(np.ascontiguousarray(images[start : start + CHUNK]).data)
    return digest.hexdigest()


class Identity(BaseModel):
    """Which training a folder holds: its recipe and its seed, what its steps are, and digests of its labels and
    `images` ("" in folders of before). The number of test tasks may differ from one evaluation to the next."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["autometa-reproduction-1"] = "autometa-reproduction-1"
    recipe: str
    content: str
    seed: int
    steps: int
    data: str
    images: str = ""

    @classmethod
    def of(cls, name: str, recipe: PaperRecipe, data: PaperData, *, seed: int, steps: int) -> Identity:
        """Of a training that is about to begin or to go on."""
        digest = hashlib.blake2b(digest_size=8)
        for part in (data.pool.labels, data.train, data.validation, data.test):
            digest.update(part.tobytes())
        content = hashlib.blake2b(recipe.learning.model_dump_json().encode(), digest_size=8).hexdigest()
        return cls(
            recipe=name,
            content=content,
            seed=seed,
            steps=steps,
            data=digest.hexdigest(),
            images=_digest(data.pool.images),
        )

    def check(self, folder: Path) -> None:
        """Write it down; where a folder holds a training already, ConfigError unless it is this one."""
        file = folder / IDENTITY
        if not file.exists():
            write_model(file, self)
            return
        earlier = read_versioned(file, Identity, "reproduction", "name another --output").model_dump()
        for name, value in self.model_dump().items():
            if earlier[name] != value and not (name == "images" and not earlier[name]):
                raise ConfigError(
                    f"--output {folder}: holds a training with {name} {earlier[name]}, not {value}; give the same, "
                    "or name another folder"
                )
