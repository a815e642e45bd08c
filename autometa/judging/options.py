"""Options of `autometa judge`: those of every run, and what is judged."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationInfo, field_validator

from autometa.core.options import RunOptions
from autometa.core.settings import option
from autometa.core.units import show_value

OWN = {"dataset", "submission", "seed", "output", "overwrite", "resume", "memory_budget"}
"""Options of a run that each run gets from the judge."""


class JudgeOptions(RunOptions):
    """What `judge` is told beside the submissions: all options of a run hold for each of its runs."""

    seed: int = option(93, "Seed of the first run of each submission.", metavar="N", ge=0, le=2**32 - 1001)
    seeds: int = option(
        3, "Runs of each submission, each with a split and tasks of its own.", metavar="N", ge=1, le=1000
    )
    jobs: int = option(1, "Runs at a time; they share the processors.", metavar="N", ge=1, le=256)
    ray: str | None = option(
        None,
        "Runs go to the machines of a Ray cluster: its address, or `auto`, or `local` for one on this machine; "
        "--jobs is of each machine then.",
        metavar="ADDRESS",
        unset="runs on this machine, without Ray",
    )
    ray_label: str | None = option(
        None, "With --ray: only machines with this label.", metavar="KEY=VALUE", unset="all machines"
    )
    output: Path | None = option(
        None,
        "Where results go; NAME is that of the dataset.",
        metavar="DIR",
        unset="output/NAME-judging-TIME",
        short="-o",
    )
    overwrite: bool = option(False, "Replace the earlier judging in --output.")
    resume: bool = option(False, "Go on with the judging in --output; runs that are done stay.")
    retry_failed: bool = option(False, "With --resume: run again what has failed.")
    keep_learners: bool = option(False, "Keep the learners that were saved; they may be large.")

    @field_validator("submission")
    @classmethod
    def _refuse_submission(cls, value: str) -> str:
        raise ValueError("name the submissions as arguments of the command")

    @field_validator("retry_failed")
    @classmethod
    def _check_retry(cls, value: bool, info: ValidationInfo) -> bool:
        if value and not info.data.get("resume"):
            raise ValueError("goes on with an earlier judging; add resume")
        return value

    @field_validator("ray_label")
    @classmethod
    def _check_label(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        key, is_pair, text = value.partition("=")
        if not (is_pair and key and text):
            raise ValueError("must be KEY=VALUE, such as machine=large")
        if not info.data.get("ray"):
            raise ValueError("is of a cluster; add ray")
        return value

    @property
    def label(self) -> tuple[str, str] | None:
        """The label that machines of a cluster must have."""
        key, _, value = (self.ray_label or "").partition("=")
        return (key, value) if key else None

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of the runs of a submission."""
        return tuple(range(self.seed, self.seed + self.seeds))


def run_flags(options: JudgeOptions) -> list[str]:
    """The options that all runs share and that were given, as `autometa run` takes them."""
    flags: list[str] = []
    for name, field in RunOptions.model_fields.items():
        value = show_value(field, getattr(options, name))
        if name in OWN or name not in options.model_fields_set or value is None:
            continue
        flag = name.replace("_", "-")
        flags += (
            [f"--{flag}" if value else f"--no-{flag}"]
            if isinstance(value, bool)
            else [f"--{flag}", str(value)]
        )
    return flags
