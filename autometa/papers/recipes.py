"""Recipes of rows of published tables: what a paper trained and how, and the figure that it reports.

They are YAML files, `recipes/PAPER/ROW.yaml`, and are named `PAPER/ROW`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autometa.core.errors import ConfigError
from autometa.core.settings import load_yaml
from autometa.data.episodes import EpisodeSpec
from autometa.learners.recipe import Recipe, in_steps
from autometa.papers.layouts import DataKind

FOLDER = Path(__file__).parent / "recipes"

Text = Annotated[str, Field(min_length=1)]


class Published(BaseModel):
    """The figure of a paper: plain `accuracy` in %, and the half-width of its `interval`, where the paper gives one,
    with what it is `over`: tasks (95 % confidence) or trainings with several seeds; None: the paper does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accuracy: float = Field(gt=0, le=100)
    interval: float | None = Field(default=None, gt=0)
    over: Literal["tasks", "seeds"] | None = None

    @model_validator(mode="after")
    def _check_interval(self) -> Self:
        if self.over is not None and self.interval is None:
            raise ValueError(f"over = {self.over}, but there is no interval: give one, or leave it out")
        return self

    def __str__(self) -> str:
        digits = 1 if round(self.accuracy, 1) == self.accuracy and not _has_hundredths(self.interval) else 2
        interval = "" if self.interval is None else f" ± {self.interval:.{digits}f}"
        return f"{self.accuracy:.{digits}f}{interval}"


def _has_hundredths(value: float | None) -> bool:
    return value is not None and round(value, 1) != value


class Achieved(BaseModel):
    """Mean plain `accuracy` over the test tasks in %, with the half-width of its 95 % `interval`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accuracy: float
    interval: float

    def __str__(self) -> str:
        return f"{self.accuracy:.2f} ± {self.interval:.2f}"


class TestTasks(BaseModel):
    """The tasks of the test: `ways` classes with `shots` labelled images and `queries` others of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    __test__ = False

    ways: int = Field(ge=2)
    shots: int = Field(ge=1)
    queries: int = Field(default=15, ge=1)
    tasks: int = Field(default=600, ge=2)

    @property
    def spec(self) -> EpisodeSpec:
        """The form of an episode."""
        return EpisodeSpec((self.ways, self.ways), (self.shots, self.shots), self.queries)


class PaperRecipe(BaseModel):
    """A row of a table. `paper`: author and year; `title`; `source`: where it is published; `table`: the table and
    the row. `data`: the kind of dataset, a row of `LAYOUTS`. `learning`: the learner, its network with the pixels of
    its images, its training with its `max_steps`, and its training episodes. `differs`: where this is known to differ
    from the paper, a line each. `reproduced`: what it gave where it was run as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paper: Text
    title: Text
    source: Text
    table: Text
    published: Published
    data: DataKind
    test: TestTasks
    learning: Recipe
    differs: tuple[Text, ...] = ()
    reproduced: Achieved | None = None

    @model_validator(mode="after")
    def _check_learning(self) -> Self:
        training, ways = self.learning.training, self.learning.options.get("ways")
        if training.max_steps is None or training.validate_every is None:
            raise ValueError("learning.training needs max_steps and validate_every: no clock ends it")
        if self.learning.data != "pool":
            raise ValueError(f"learning.data = {self.learning.data}: only pool has the classes of a dataset")
        if ways is not None and ways != self.test.ways:
            raise ValueError(
                f"learning.options.ways = {ways}, but tasks have {self.test.ways} ways: write the same"
            )
        return self

    @property
    def px(self) -> int:
        """Side of the images."""
        return self.learning.encoder.px

    @property
    def steps(self) -> int:
        """Of the training."""
        return self.learning.training.max_steps or 0

    def prepared(self, seed: int, steps: int | None) -> Recipe:
        """The learner's recipe for one training, of which neither result nor end depends on time: with this seed, and
        with other `steps` where these are given."""
        wanted = steps or self.steps
        recipe = in_steps(self.learning, wanted)
        every = min(self.learning.training.validate_every or wanted, wanted)
        training = recipe.training.model_copy(
            update={"seed": seed, "patience": None, "validate_every": every}
        )
        return recipe.model_copy(update={"training": training})


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe with its name, `PAPER/ROW`, or the name of its file where it is one of the user's."""

    name: str
    recipe: PaperRecipe


def list_names() -> list[str]:
    """The names of all recipes that come with autometa."""
    return sorted(f"{file.parent.name}/{file.stem}" for file in FOLDER.glob("*/*.yaml"))


def list_recipes() -> list[NamedRecipe]:
    """All recipes that come with autometa, by name."""
    return [read_recipe(name) for name in list_names()]


def read_recipe(name: str) -> NamedRecipe:
    """The recipe of a name, or in a YAML file of the user. ConfigError for an unknown name, with those that are most
    like it, or for a file that is no recipe."""
    names = list_names()
    if name in names:
        return NamedRecipe(name, load_yaml(FOLDER / f"{name}.yaml", PaperRecipe))
    file = Path(name)
    if file.suffix in (".yaml", ".yml"):
        return NamedRecipe(file.stem, load_yaml(file, PaperRecipe))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else "see all of them with --list"
    raise ConfigError(f"RECIPE {name}: there is no such recipe; {hint}")
