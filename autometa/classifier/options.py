"""Options of `autometa fit`, on the command line, in its `--config` file and in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from autometa.core.errors import ConfigError
from autometa.core.options import ServingLimitOptions, WeightsOptions
from autometa.core.settings import option
from autometa.core.units import Duration, Size


class FitOptions(ServingLimitOptions, WeightsOptions):
    """What `fit` is told beside the folder with the images."""

    output: Path | None = option(None, "Folder of the model.", metavar="DIR", short="-o")
    time_budget: Duration = option(
        120.0, "The whole work, from start to saved model; 90s, 10m, 2h.", metavar="TIME", ge=10
    )
    memory_budget: Size | None = option(
        None,
        "Memory of this process, such as 4GB.",
        metavar="SIZE",
        unset="80 % of the free memory",
        ge=10**9,
    )
    image_size: Annotated[int, Field(ge=16, le=1024)] | Literal["auto"] = option(
        "auto",
        "Size at which images are prepared, in pixels.",
        metavar="PX|auto",
        unset="128 or what they have, up to 256",
    )
    image_shape: Literal["auto", "squeeze", "pad", "crop"] = option(
        "auto",
        "How images become square.",
        unset="squeeze, unless held-out classes say otherwise where images are far from square",
    )
    class_split: Path | None = option(
        None,
        "Classes to learn from, and to score on: JSON, or a folder with train.csv, val.csv, test.csv.",
        metavar="FILE|DIR",
        unset="all classes",
    )
    ray: str | None = option(
        None,
        "Images are embedded and copies of networks trained on the machines of a Ray cluster, too: its address, or "
        "`auto`, or `local` for one on this machine.",
        metavar="ADDRESS",
        unset="all work on this machine, without Ray",
    )
    seed: int = option(0, "Seed of what is drawn.", metavar="N", ge=0, le=2**32 - 1)
    overwrite: bool = option(False, "Replace an earlier model in --output.")

    @property
    def folder(self) -> Path:
        """`output`. ConfigError where it is not given."""
        if self.output is None:
            raise ConfigError("--output is missing: give -o FOLDER, where the model is to be saved")
        return self.output

    @property
    def wanted(self) -> str:
        """The backbones, or the preset of some, that are asked for."""
        return self.backbones or self.preset or "auto"
