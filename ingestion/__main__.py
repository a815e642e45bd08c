"""`python -m ingestion`: the ingestion program of the Cross-Domain MetaDL format.

The original flags are accepted under their names, with underscores or dashes, as `--name=value`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from pydantic import ValidationError

from ingestion.outputs import machine_summary
from ingestion.preparation import SHAPES
from ingestion.program import run
from ingestion.program_age import seconds_since_start
from ingestion.refused import refusing
from ingestion.sandbox import SandboxChoice
from ingestion.settings import Event, IngestionSettings, print_event
from ingestion.splits import Protocol
from ingestion.terminal import prepare_process

F = TypeVar("F", bound=Callable[..., Any])


def read_range(value: str) -> tuple[int, int]:
    """The two numbers of `LOW-HIGH`, or one number for both; click.BadParameter if it is neither."""
    low, _, high = value.partition("-")
    if not low.isdigit() or not (high or low).isdigit():
        raise click.BadParameter(f"`{value}` is not a range like 2-20 or a number like 5")
    return int(low), int(high or low)


def read_image_size(value: str) -> int | str:
    """A number of pixels, or `auto`; click.BadParameter if it is neither."""
    if value != "auto" and not value.isdigit():
        raise click.BadParameter(f"`{value}` is neither a number of pixels nor `auto`")
    return value if value == "auto" else int(value)


def flag(name: str, **attributes: Any) -> Callable[[F], F]:
    """An option under its original name or with dashes."""
    spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
    return click.option(*spellings, name, show_default=True, **attributes)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@flag("input_data_dir", type=click.Path(path_type=Path), default=Path("../../public_data"))
@flag("submission_dir", type=click.Path(path_type=Path), default=Path("../../baselines/random"))
@flag("output_dir_ingestion", type=click.Path(path_type=Path), default=Path("../../ingestion_output"))
@flag("seed", type=int, default=93)
@flag("verbose", type=bool, default=True)
@flag(
    "debug_mode",
    type=click.IntRange(0, 3),
    default=0,
    help="1: enforce max_time; 2: and list folders; 3: only show the machine.",
)
@flag("image_size", type=read_image_size, metavar="PX|auto", default="128")
@flag("image_shape", type=click.Choice(["auto", *SHAPES]), default="squeeze")
@flag("overwrite_previous_results", type=bool, default=False)
@flag("resume", type=bool, default=False, help="Continue the earlier run in the output folder.")
@flag(
    "max_time", type=float, default=1000, help="Seconds a meta-test task may take (with debug_mode 1 or 2)."
)
@flag("test_tasks_per_dataset", type=int, default=100)
@flag("time_budget_s", type=float, default=None, help="Seconds for the whole run.")
@flag("memory_budget_bytes", type=int, default=None)
@flag("gpu_memory_budget_bytes", type=int, default=None, help="By default 90 % of what is free on the GPU.")
@flag("ways", type=read_range, metavar="LOW-HIGH", default="2-20")
@flag("shots", type=read_range, metavar="LOW-HIGH", default="1-20")
@flag("query_images_per_class", type=int, default=20)
@flag("protocol", type=click.Choice(get_args(Protocol)), default="auto")
@flag(
    "class_split",
    type=click.Path(path_type=Path),
    default=None,
    help="A file with the classes of meta-train, meta-valid and meta-test, instead of drawn ones.",
)
@flag("sandbox", type=click.Choice(get_args(SandboxChoice)), default="auto")
@flag(
    "isolate_tasks",
    type=bool,
    default=False,
    help="A process for each meta-test task, with nothing of the one before.",
)
@flag(
    "predictions_only",
    type=bool,
    default=False,
    help="The output folder gets neither the learner nor the truth: participants may see it.",
)
@flag("cache_dir", type=click.Path(path_type=Path), default=None)
@refusing()
def main(
    debug_mode: int, max_time: float, overwrite_previous_results: bool, resume: bool, **flags: Any
) -> None:
    """Meta-train a submission, let it answer the meta-test tasks, and write what scoring needs."""
    started = time.monotonic() - seconds_since_start()
    prepare_process()
    if debug_mode == 3:
        click.echo("\n".join(f"{name}: {value}" for name, value in machine_summary().items()))
        return
    flags["submission"] = flags.pop("submission_dir")
    flags["output_dir"] = flags.pop("output_dir_ingestion").resolve()  # `.` may be renamed
    if debug_mode == 2:
        for name in ("input_data_dir", "submission"):
            click.echo(f"{flags[name]}: {sorted(p.name for p in flags[name].glob('*'))}")
    try:
        settings = IngestionSettings(**flags, max_time_s=max_time if debug_mode else None, started=started)
        result = run(settings, print_event, overwrite=overwrite_previous_results, resume=resume)
    except ValidationError as error:
        first = error.errors()[0]
        raise click.UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except OSError as error:  # a full disk, as a rule; what is done is kept
        named = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{named}{error.strerror or error}; free space there") from error
    print_event(Event("note", f"{result.tasks - len(result.failures)} of {result.tasks} tasks done"))
    sys.exit(0 if result.succeeded else 1)


if __name__ == "__main__":
    main()
