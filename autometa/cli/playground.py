"""`autometa playground`: a page in the browser to try a classifier on images that are dropped."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autometa.cli.options import CONTEXT, examples
from autometa.cli.program import Command

if TYPE_CHECKING:
    from autometa.classifier import FewShotClassifier


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples("autometa playground model", "autometa playground auto --port 8000 --no-browser"),
)
@click.argument("model", metavar="MODEL")
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(1, 65535),
    help="Port on this machine. Default: the first free one from 7860 on.",
)
@click.option(
    "--browser/--no-browser", default=True, help="Open the page in a browser, or only print its address."
)
def playground(model: str, port: int | None, browser: bool) -> None:
    """Drop images of each class in a browser, drop one more, see the probabilities.

    MODEL is a folder that `autometa fit -o` or a run has made, or `auto` or a preset for pretrained backbones as they
    are. The page is served to this machine only, and nothing is sent elsewhere. It needs the extra `playground`.
    """
    from autometa.classifier.playground import import_gradio, serve  # noqa: PLC0415 - help should not wait

    import_gradio()  # before what takes long: it may be missing
    classifier = _open(model)
    with serve(classifier, f"Playground: {model}", port=port, browser=browser) as address:
        click.echo(f"{address} (Ctrl-C ends it)")
        threading.Event().wait()


def _open(model: str) -> FewShotClassifier:
    """A classifier that knows no classes yet; its networks are loaded. ArtifactError for a folder without a model."""
    from autometa.backbones import PRESETS  # noqa: PLC0415 - imports torch
    from autometa.classifier import FewShotClassifier  # noqa: PLC0415
    from autometa.classifier.sources import open_model, open_preset  # noqa: PLC0415

    if not Path(model).exists() and (model == "auto" or model in PRESETS):
        open_preset(model)
        return FewShotClassifier(preset=model)
    open_model(Path(model))
    return FewShotClassifier(model)
