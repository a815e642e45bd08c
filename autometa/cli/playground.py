"""`autometa playground`: a page in the browser to try a learner on images that are dropped."""

from __future__ import annotations

import threading
from pathlib import Path

import click

from autometa.cli.options import CONTEXT, examples
from autometa.cli.program import Command


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples("autometa playground my-model", "autometa playground my-model --port 8000 --no-browser"),
)
@click.argument("model", metavar="MODEL", type=click.Path(exists=True, file_okay=False))
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port on this machine. Default: the first free one from 7860.",
)
@click.option(
    "--browser/--no-browser", default=True, help="Open the page in a browser, or only print its address."
)
def playground(model: str, port: int | None, browser: bool) -> None:
    """Drop images of each class in a browser, drop one more, see the probabilities.

    MODEL is a folder that `autometa fit` or `autometa run` has saved. The page is served to this machine only, nothing
    is sent elsewhere. It needs the extra `playground`: pip install 'autometa[playground]'.
    """
    from autometa.classifier import FewShotClassifier  # noqa: PLC0415 - takes seconds, and help should not
    from autometa.classifier.playground import import_gradio, serve  # noqa: PLC0415
    from autometa.classifier.sources import open_model  # noqa: PLC0415

    import_gradio()  # before what takes long: it may be missing
    open_model(Path(model))
    classifier = FewShotClassifier(model=model)
    with serve(classifier, f"Playground: {model}", port=port, browser=browser) as address:
        click.echo(f"{address} (Ctrl-C ends it)")
        threading.Event().wait()
