"""Options of commands as validated models: each field is declared once, with its help, unit, default and limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationInfo, field_validator

from autometa.core.settings import MOST_SEED, may_be_added, option
from autometa.core.units import Duration, Shots, Size, Ways

LEAST_TIME_S, LEAST_GPU_BYTES = 20.0, 2**29
LEAST_MEMORY_BYTES = 100_000_000
"""Of all processes of a submission: less cannot be meant. What is needed depends on the machine."""


class WeightsOptions(BaseModel):
    """Options that name pretrained backbones and say where their weights may come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbones: str | None = option(
        None,
        "Backbones to use, by their names in timm.",
        metavar="NAME,...",
        unset="those whose weights are on this machine",
        min_length=1,
    )
    preset: Literal["tiny", "small", "base", "large"] | None = option(
        None, "Backbones for a budget, instead of --backbones.", unset="by budget and machine"
    )
    weights_dir: Path | None = option(
        None, "Folder with further weights, as NAME.safetensors.", metavar="DIR"
    )
    download: Literal["never", "ask-cache", "allow"] = option(
        "ask-cache", "Weights from packages and --weights-dir only, from caches too, or from the hub."
    )
    download_limit: Size = option(
        ByteSize(4 * 10**9), "Bytes to download, at most, such as 500MB.", metavar="SIZE"
    )

    @field_validator("preset")
    @classmethod
    def _check_preset(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and info.data.get("backbones"):
            raise ValueError("backbones and preset both name backbones; give one of them")
        return value

    @field_validator("weights_dir")
    @classmethod
    def _check_weights_dir(cls, value: Path | None) -> Path | None:
        try:
            found = value is None or value.is_dir()
        except OSError:  # such as a name that is too long
            found = False
        if not found:
            raise ValueError("there is no such folder")
        return value


class ServingLimitOptions(BaseModel):
    """Options that limit what the learner may cost those who use it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    infer_limit: Duration | None = option(
        None, "Time to predict one image with the learner, such as 30ms.", metavar="TIME", unset="any", gt=0
    )
    adapt_limit: Duration | None = option(
        None,
        "Time to adapt the learner to 5 classes with 5 images each, such as 2s.",
        metavar="TIME",
        unset="any",
        gt=0,
    )
    max_model_size: Size | None = option(
        None, "Size of the learner on disk, such as 50MB.", metavar="SIZE", unset="any", gt=0
    )


class RunOptions(ServingLimitOptions, WeightsOptions):
    """Options of `autometa run` and `run_local.py`, on the command line or in its `--config` file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Path | None = option(
        None,
        "MetaDL root, Meta-Album dataset(s), or a folder of class folders.",
        metavar="DIR",
        unset="the demo",
    )
    submission: str = option("autometa", "A bundle, or the name of a baseline.", metavar="DIR|ZIP|NAME")
    time_budget: Duration = option(
        120.0, "Whole run: import, meta-train, meta-test; 90s, 10m, 2h.", metavar="TIME", ge=LEAST_TIME_S
    )
    memory_budget: Size | None = option(
        None,
        "All processes of the submission, such as 4GB.",
        metavar="SIZE",
        unset="80 % of the free memory",
        ge=LEAST_MEMORY_BYTES,
    )
    gpu_memory_budget: Size | None = option(
        None,
        "The same on the GPU, such as 2GB.",
        metavar="SIZE",
        unset="90 % of its free memory",
        ge=LEAST_GPU_BYTES,
    )
    tasks_per_dataset: int = option(30, "Meta-test tasks of each dataset.", metavar="N", ge=1)
    query_per_class: int | None = option(
        None, "Query images per class.", metavar="N", unset="20, fewer if classes are small", ge=1
    )
    ways: Ways = option((2, 20), "Classes per task.", metavar="LOW-HIGH")
    shots: Shots = option((1, 20), "Labelled images per class.", metavar="LOW-HIGH")
    image_size: Annotated[int, Field(ge=8, le=1024)] | Literal["auto"] = option(
        "auto",
        "Size at which images are prepared, in pixels.",
        metavar="PX|auto",
        unset="128 or what they have, up to 256",
    )
    image_shape: Literal["auto", "squeeze", "pad", "crop"] = option(
        "auto", "How images become square.", unset="squeeze, and a note where they are far from square"
    )
    seed: int = option(93, "Seed of splits and tasks.", metavar="N", ge=0, le=MOST_SEED)
    protocol: Literal["auto", "within-domain", "cross-domain"] = option(
        "auto", "Hold out classes, or whole datasets."
    )
    class_split: Path | None = option(
        None,
        "Classes to learn from, to validate and to test on: JSON, or a folder with train.csv, val.csv, test.csv.",
        metavar="FILE|DIR",
        unset="drawn by the seed",
    )
    sandbox: Literal["auto", "strict", "none", "bubblewrap", "landlock"] = option(
        "auto", "Sandbox of the submission; strict refuses to run with less than a whole one."
    )
    isolate_tasks: bool = option(
        False, "A process for each meta-test task, which finds nothing of the one before."
    )
    output: Path | None = option(
        None,
        "Where results go; NAME is that of the dataset.",
        metavar="DIR",
        unset="output/NAME-TIME",
        short="-o",
    )
    overwrite: bool = option(False, "Replace the results of an earlier run in --output.")
    resume: bool = option(False, "Continue the earlier run in --output, which was killed.")

    @field_validator("resume")
    @classmethod
    def _check_resume(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("overwrite"):
            raise ValueError("overwrite would delete what resume continues; give only one of them")
        if value and info.data.get("output") is None and not may_be_added(info):
            raise ValueError("set output to the folder of the run to resume")
        return value


def task_settings(options: Any) -> dict[str, Any]:
    """What options of a run, or of a grid of runs, say of its tasks, under the names of the settings of ingestion."""
    return {
        "seed": options.seed,
        "image_size": options.image_size,
        "image_shape": options.image_shape,
        "test_tasks_per_dataset": options.tasks_per_dataset,
        "ways": options.ways,
        "shots": options.shots,
        "query_images_per_class": options.query_per_class,
        "protocol": options.protocol,
        "sandbox": options.sandbox,
    }
