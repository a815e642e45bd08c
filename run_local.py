"""Run a submission on a dataset as a challenge would: ingestion, then scoring, then a table of scores.

python run_local.py --dataset DIR --time-budget 10m --memory-budget 4GB

An installed copy has it as the command `autometa` and as `python -m run_local`.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console

from autometa.core.budget import MemoryBudget, process_age_s
from autometa.core.errors import ConfigError
from autometa.core.settings import RunOptions, load_yaml, validate_settings
from autometa.display import Display, score_table
from ingestion import IngestionSettings, InputError
from ingestion import run as run_ingestion
from ingestion.disk import remove
from ingestion.terminal import prepare_process
from scoring import ScoringError, ScoringSettings, score

ROOT = Path(__file__).resolve().parent
SHIPPED = ROOT / "autometa" / "shipped"
"""What an installed copy brings along; a checkout has no such folder."""
DEMO = SHIPPED / "demo" if SHIPPED.is_dir() else ROOT / "examples" / "demo"
BASELINES = SHIPPED / "baselines" if SHIPPED.is_dir() else ROOT / "baselines"
MARK_FILE = ".autometa-run"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--dataset",
    metavar="DIR",
    help="MetaDL root, Meta-Album dataset(s), or a folder of class folders. Default: the demo.",
)
@click.option(
    "--submission", metavar="DIR|ZIP|NAME", help="A bundle, or the name of a baseline. Default: autometa."
)
@click.option(
    "--time-budget",
    metavar="TIME",
    help="Whole run: import, meta-train, meta-test; 90s, 10m, 2h. Default: 2m.",
)
@click.option(
    "--memory-budget",
    metavar="SIZE",
    help="All processes of the submission, such as 4GB. Default: 80 % of the free memory.",
)
@click.option(
    "--gpu-memory-budget",
    metavar="SIZE",
    help="The same on the GPU, such as 2GB. Default: 90 % of its free memory.",
)
@click.option(
    "--backbones",
    metavar="NAME,...",
    help="Backbones to use, by their names in timm. Default: those whose weights are on this machine.",
)
@click.option(
    "--preset", metavar="tiny|small|base|large", help="Backbones for a budget, instead of --backbones."
)
@click.option("--weights-dir", metavar="DIR", help="Folder with further weights, as NAME.safetensors.")
@click.option(
    "--download",
    metavar="never|ask-cache|allow",
    help="Weights from packages and --weights-dir only, from caches too, or from the hub. Default: ask-cache.",
)
@click.option("--download-limit", metavar="SIZE", help="Bytes to download, at most. Default: 4GB.")
@click.option("--tasks-per-dataset", metavar="N", help="Meta-test tasks of each dataset. Default: 30.")
@click.option(
    "--query-per-class",
    metavar="N",
    help="Query images per class. Default: 20, fewer if classes are small.",
)
@click.option("--ways", metavar="LOW-HIGH", help="Classes per task. Default: 2-20.")
@click.option("--shots", metavar="LOW-HIGH", help="Labelled images per class. Default: 1-20.")
@click.option(
    "--image-size",
    metavar="PX|auto",
    help="Size at which images are prepared. Default: auto, 128 or what they have, up to 256.",
)
@click.option("--seed", metavar="N", help="Seed of splits and tasks. Default: 93.")
@click.option(
    "--protocol",
    metavar="auto|within-domain|cross-domain",
    help="Hold out classes, or whole datasets. Default: auto.",
)
@click.option(
    "--sandbox", metavar="auto|none|bubblewrap|landlock", help="Sandbox of the submission. Default: auto."
)
@click.option("--output", metavar="DIR", help="Where results go. Default: output/NAME-TIME.")
@click.option(
    "--overwrite", is_flag=True, default=None, help="Replace the results of an earlier run in --output."
)
@click.option(
    "--resume", is_flag=True, default=None, help="Continue the earlier run in --output, which was killed."
)
@click.option(
    "--config",
    metavar="YAML",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with any of these options.",
)
def main(config: Path | None, **given: Any) -> None:
    """Run a submission on a dataset within a time and memory budget and score it.

    Exit status: 0 when ingestion and scoring succeeded, 1 when the run failed, 2 for bad arguments.
    """
    started = time.monotonic() - process_age_s()
    prepare_process()
    console = Console()
    try:
        options = read_options(config, given)
        started += prepare_weights(options, console)
        settings = ingestion_settings(options, started)
        claim = claim_output(settings.output_dir.parent, overwrite=options.overwrite, resume=options.resume)
        display = Display(console, options.time_budget, started)
        with display.live():
            result = run_ingestion(settings, display.show, resume=options.resume)
    except (ConfigError, InputError) as error:
        raise click.UsageError(str(error)) from error
    folder = settings.output_dir.parent
    if options.resume:
        remove(folder / "scoring")  # it may be incomplete after a kill
    try:
        summary = score(
            ScoringSettings(
                results_dir=settings.output_dir,
                output_dir_scoring=folder / "scoring",
            )
        )
    except (ScoringError, OSError) as error:
        console.print(f"scoring failed: {error}", style="bold red", markup=False)
        sys.exit(1)
    console.print(score_table(summary.overall, summary.datasets))
    console.print(f"ingestion took {result.seconds['total']:.1f} s of {options.time_budget:.0f} s")
    console.print(f"report: {summary.report}", soft_wrap=True, highlight=False)
    claim.close()
    sys.exit(0 if result.succeeded else 1)


def read_options(config: Path | None, given: dict[str, Any]) -> RunOptions:
    """Options of the command line and of the file; the former take precedence. ConfigError names the option and the
    fix."""
    options = load_yaml(config, RunOptions).model_dump(exclude_unset=True) if config else {}
    chosen = {name: value for name, value in given.items() if value is not None}
    return validate_settings(RunOptions, options | chosen, "options")


def prepare_weights(options: RunOptions, console: Console) -> float:
    """Tell the submission which backbones to use and where their weights may be, and download what is missing where
    that is allowed. Seconds that this took, which do not count for the run."""
    began = time.monotonic()
    names = options.backbones or options.preset or ""
    if names:
        os.environ["AUTOMETA_BACKBONES"] = names
    if options.download == "never":
        os.environ["AUTOMETA_CACHES"] = "no"
    if options.weights_dir is not None:
        os.environ["AUTOMETA_WEIGHTS_DIR"] = str(options.weights_dir.resolve())
    if options.download != "allow":
        return 0.0
    if not names:
        raise ConfigError("--download allow: name what to download with --backbones or --preset")
    from autometa.backbones.fetch import fetch_named  # noqa: PLC0415 - slow to import, and rarely needed

    def show(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    fetch_named([name.strip() for name in names.split(",")], show, options.download_limit)
    return time.monotonic() - began


def ingestion_settings(options: RunOptions, started: float) -> IngestionSettings:
    """The settings of ingestion. ConfigError for an unknown baseline."""
    dataset = options.dataset or DEMO
    name = f"{dataset.resolve().name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = options.output or Path("output") / name
    return IngestionSettings(
        input_data_dir=dataset,
        submission=find_submission(options.submission),
        output_dir=folder / "ingestion",
        seed=options.seed,
        image_size=options.image_size,
        test_tasks_per_dataset=options.tasks_per_dataset,
        ways=options.ways,
        shots=options.shots,
        query_images_per_class=options.query_per_class,
        protocol=options.protocol,
        sandbox=options.sandbox,
        time_budget_s=options.time_budget,
        memory_budget_bytes=options.memory_budget or MemoryBudget.of_machine().total_bytes,
        gpu_memory_budget_bytes=options.gpu_memory_budget,
        started=started,
    )


def claim_output(folder: Path, *, overwrite: bool, resume: bool = False) -> IO[str]:
    """Reserve `folder` for this run, as long as the returned file is open.

    `overwrite` deletes an earlier run in it, `resume` keeps it. ConfigError if the folder holds other files, another
    run uses it, or it cannot be written.
    """
    mark = folder / MARK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ours = mark.exists()
        if any(folder.iterdir()) and not ((overwrite or resume) and ours):
            advice = "add --overwrite or --resume, or name" if ours else "it is not the output of a run: name"
            raise ConfigError(f"--output {folder}: exists and is not empty; {advice} another folder")
        claim = mark.open("a")
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for part in () if resume else ("ingestion", "scoring"):
            remove(folder / part)
    except BlockingIOError as error:
        raise ConfigError(f"--output {folder}: another run is using it; name another folder") from error
    except OSError as error:
        raise ConfigError(
            f"--output {folder}: cannot be used ({error.strerror}); name another folder"
        ) from error
    return claim


def find_submission(name: str) -> Path:
    """A bundle by path, or a baseline by name. ConfigError lists the baselines."""
    baselines = sorted(p.parent.name for p in BASELINES.glob("*/model.py"))
    if name in baselines and not (Path(name) / "model.py").exists():
        return BASELINES / name
    if Path(name).exists():
        return Path(name)
    raise ConfigError(
        f"--submission {name}: no such file or folder, and no baseline ({', '.join(baselines)})"
    )


if __name__ == "__main__":
    main()
