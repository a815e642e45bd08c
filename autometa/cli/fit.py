"""`autometa fit`: learns from a folder of images, and leaves a model that classifies."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autometa.classifier.options import FitOptions
from autometa.cli.options import (
    CONTEXT,
    config_option,
    examples,
    json_option,
    level,
    level_options,
    merge_options,
    model_options,
    print_json,
)
from autometa.cli.output import make_console
from autometa.cli.program import Command
from autometa.cli.run_setup import prepare_weights
from autometa.core.budget import MemoryBudget, process_age_s
from autometa.core.claims import locked_folder
from autometa.display import Display
from ingestion import Event

if TYPE_CHECKING:
    from autometa.classifier.training import Fitted


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples(
        "autometa fit photos -o model",
        "autometa fit photos -o model --time-budget 10m --memory-budget 4GB",
        "autometa fit photos -o model --time-budget 1h --ray 10.0.0.1:6379",
        "autometa classify model new/*.jpg",
    ),
)
@click.argument("dataset", metavar="DATASET", type=click.Path(path_type=Path))
@model_options(FitOptions)
@config_option
@json_option("what came of it")
@level_options
def fit(dataset: Path, config: Path | None, as_json: bool, **given: Any) -> None:
    """Learn from a folder of images within a time and memory budget.

    DATASET has a subfolder of images for each class, from two classes on. The model remembers them and can be given
    other classes later. It learns from all classes, with as many images of each as time and memory allow. The
    accuracy that is told comes from classes that were held out. With --class-split, only classes of meta-train are
    learned from and remembered.
    """
    options = merge_options(FitOptions, config, given)
    console = make_console(stderr=as_json)
    started = time.monotonic() - process_age_s()
    display = Display(
        console,
        options.time_budget,
        started,
        level(),
        memory_bytes=options.memory_budget or MemoryBudget.of_machine().total_bytes,
        in_process=True,
    )
    weights_s = prepare_weights(  # which does not count
        options, dataset, options.time_budget, display.line, options.memory_budget
    )
    display.status.started = started + weights_s
    from autometa.classifier.training import fit_folder  # noqa: PLC0415 - imports torch

    with locked_folder(options.output, "--output"), display.live():
        display.show(Event("stage", "images"))
        fitted = fit_folder(
            dataset,
            options,
            lambda line: display.show(Event("line", line)),
            lambda done, total: display.show(Event("progress", done=done, total=total)),
            process_age_s() - weights_s,
        )
    if as_json:
        print_json(_record(fitted))
    else:
        for line in _lines(fitted):
            display.result(line)


def _record(fitted: Fitted) -> dict[str, Any]:
    return {"model": str(fitted.folder)} | fitted.figures | fitted.classifier.summary()


def _lines(fitted: Fitted) -> list[str]:
    """What to say in the end."""
    figures, lines = fitted.figures, []
    if "normalised_accuracy" in figures:
        low, high = figures["interval"]
        lines.append(
            f"expected on new classes: {100 * figures['normalised_accuracy']:.1f} % normalised accuracy "
            f"(95 %: {100 * low:.1f} to {100 * high:.1f})"
        )
    if (scored := figures.get("validation")) is not None:
        lines.append(
            f"on the {scored['classes']} classes of meta-valid: {100 * scored['normalised_accuracy']:.1f} ± "
            f"{100 * scored['ci95']:.1f} % normalised accuracy ({scored['tasks']} tasks)"
        )
    serving = figures["serving"]
    size = f"{serving['bytes'] / 1e6:.1f} MB"
    if (latency := serving["latency"]) is not None:
        size += (
            f"; one image of {latency['px']} px in {latency['predict']['p95_ms']:.3g} ms, "
            f"{latency['support_images']} examples learned in {latency['adapt']['p95_ms']:.3g} ms (95th percentiles)"
        )
    lines += [f"serves: {size}", f"model: {fitted.folder}"]
    return lines
