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
from autometa.planning.serving_limits import show_ms
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
    folder = options.folder
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
    from autometa.classifier.output_folder import removed_if_empty  # noqa: PLC0415 - imports torch
    from autometa.classifier.training import fit_folder  # noqa: PLC0415

    with removed_if_empty(folder), locked_folder(folder, "--output"), display.live():
        display.show(Event("stage", "images"))
        fitted = fit_folder(
            dataset,
            options,
            lambda line: _show(display, line),
            lambda done, total: display.show(Event("progress", done=done, total=total)),
            process_age_s() - weights_s,
        )
    for line in fitted.figures["over_limits"]:
        display.show(Event("failure", f"warning: {line}"))
    if as_json:
        print_json(_record(fitted))
    else:
        for line in _lines(fitted):
            display.result(line)


def _show(display: Display, line: str) -> None:
    """Show a line of the work: notes by default, others where every line is wanted."""
    from autometa.classifier.notes import Note  # noqa: PLC0415 - slow to import

    display.show(Event("note" if isinstance(line, Note) else "line", line))


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
    else:
        lines.append(f"expected on new classes: not known, as {figures['not_measured']}")
    if (scored := figures.get("validation")) is not None:
        lines.append(
            f"on the {scored['classes']} classes of meta-valid: {100 * scored['normalised_accuracy']:.1f} ± "
            f"{100 * scored['ci95']:.1f} % normalised accuracy ({scored['tasks']} tasks)"
        )
    serving = figures["serving"]
    size = f"{serving['bytes'] / 1e6:.1f} MB"
    if (latency := serving["latency"]) is not None:
        infer, adapt = (show_ms(latency[each]["p95_ms"] / 1000) for each in ("predict", "adapt"))
        size += (
            f"; one image of {latency['px']} px in {infer}, {latency['support_images']} examples learned in {adapt} "
            "(95th percentiles)"
        )
    lines += [f"serves: {size}", f"model: {fitted.folder}"]
    return lines
