"""Options of `autometa reproduce`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from autometa.core.settings import option


class ReproduceOptions(BaseModel):
    """What a reproduction is told beside the recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    list: bool = option(False, "Show all recipes with their published figures, and end.")
    data: Path | None = option(None, "Folder of the dataset that the recipe names.", metavar="DIR")
    split: Path | None = option(
        None,
        "JSON file, or folder of train.csv, val.csv and test.csv, that says which classes are for what.",
        metavar="FILE",
        unset="that of the dataset",
    )
    output: Path | None = option(
        None,
        "Where the training and result.json go; one that was begun there goes on.",
        metavar="DIR",
        short="-o",
        unset="output/papers/RECIPE-SEED",
    )
    seed: int = option(
        0, "Seed of the training; test tasks are the same for all.", metavar="N", ge=0, le=2**32 - 1
    )
    tasks: int | None = option(None, "Test tasks.", metavar="N", unset="as in the paper", ge=2)
    steps: int | None = option(None, "Training steps.", metavar="N", unset="as in the recipe", ge=1)
