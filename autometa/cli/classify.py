"""`autometa classify`: classes of images, with a saved model or with pretrained backbones as they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autometa.cli.options import CONTEXT, examples, level, level_options, print_json
from autometa.cli.program import FAILED, BadInput, Command
from autometa.core.progress import QUIET

if TYPE_CHECKING:
    from autometa.classifier import FewShotClassifier

CHUNK = 64
"""Images that are classified at a time."""
DECIMALS = 6


@dataclass(frozen=True)
class Answer:
    """What is said of one image: its class with the probability, those of all classes, or why there is none."""

    image: str
    label: str = ""
    probabilities: tuple[float, ...] = ()
    error: str = ""


@click.command(
    cls=Command,
    context_settings=CONTEXT,
    epilog=examples(
        "autometa classify model photo.jpg",
        "autometa classify model new/ --csv > classes.csv",
        "autometa classify model --support labelled photo.jpg",
        "autometa classify auto --support labelled photo.jpg",
    ),
)
@click.argument("model", metavar="MODEL")
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--support",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Labelled images, a subfolder for each class. Default: the classes that the model remembers.",
)
@click.option(
    "--csv", "as_csv", is_flag=True, help="Print a table with the probabilities of all classes as CSV."
)
@click.option("--json", "as_json", is_flag=True, help="Print the probabilities of all classes as JSON.")
@click.option(
    "--reject-below",
    metavar="P",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Answer `none of these` where a known class is less probable than this.",
)
@click.option(
    "--transductive",
    is_flag=True,
    help="Answer all images together, which assumes that each class is among them about equally often. Needs "
    "--support.",
)
@level_options
def classify(  # noqa: PLR0913, PLR0917 - one argument an option
    model: str,
    images: Sequence[Path],
    support: Path | None,
    as_csv: bool,
    as_json: bool,
    reject_below: float | None,
    transductive: bool,
) -> None:
    """Classify images by a few labelled ones, without training.

    MODEL is a folder that `autometa fit -o` or a run has made, or `auto` or a preset for pretrained backbones as they
    are. IMAGES are files, or folders of them. What cannot be read is named, and does not stop the others.

    Exit status: 0 when all images were classified, 1 when some were not, 2 for bad arguments.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other; give one of them")
    if support is None and transductive:
        raise click.UsageError(
            "answers of --transductive need --support; add it, or leave --transductive out"
        )
    files, unread = find_images(images)
    classifier = _open(model, support, reject_below, transductive=transductive)
    answers = list(_answer(classifier, files))
    names = [str(name) for name in classifier.classes_]
    if as_json:
        print_json([_record(answer, names) for answer in answers])
    elif as_csv:
        click.echo(_table(answers, names), nl=False)
    else:
        for answer in answers:
            if not answer.error:
                click.echo(f"{answer.image}: {_tell(answer, names)}")
    errors = [*(answer.error for answer in answers if answer.error), *unread]
    for error in errors:
        click.echo(f"not classified: {error}", err=True)
    if errors:
        raise SystemExit(FAILED)


def _tell(answer: Answer, names: Sequence[str]) -> str:
    """The class with its probability. Probabilities are of the known classes, so they say nothing of an image that is
    none of these."""
    nearest, probability = max(zip(names, answer.probabilities, strict=True), key=lambda pair: pair[1])
    return (
        f"{answer.label} ({probability:.0%})"
        if answer.label == nearest
        else f"{answer.label} (nearest: {nearest})"
    )


def find_images(places: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files that are named, and the images in folders that are named, sorted, as `autometa fit` finds them; and a
    line for whatever in these folders cannot be read. BadInput where one is not there, or a folder has none."""
    from ingestion.folders import ClassWalk  # noqa: PLC0415 - imports Pillow

    found: list[Path] = []
    unread: list[str] = []
    for place in places:
        if not place.exists():
            raise BadInput(f"IMAGES {place}: no such file or folder")
        if not place.is_dir():
            found.append(place)
            continue
        walk = ClassWalk(place)
        walk.read([("", place)])
        lines = [f"{place}: {line}" for line in walk.tell_unread()]
        files = walk.files()[0]
        if not files:
            why = f" ({'; '.join(lines)})" if lines else ""
            raise BadInput(f"IMAGES {place}: no image in this folder{why}")
        found, unread = found + files, unread + lines
    return found, unread


def _open(
    model: str, support: Path | None, reject_below: float | None, *, transductive: bool
) -> FewShotClassifier:
    """The classifier that is asked for, which knows its classes."""
    from autometa.backbones import PRESETS  # noqa: PLC0415 - imports torch
    from autometa.classifier import FewShotClassifier  # noqa: PLC0415

    is_preset = not Path(model).exists() and (model == "auto" or model in PRESETS)
    if not is_preset and not Path(model).is_dir():
        raise BadInput(f"MODEL {model}: no such folder, and no preset ({', '.join(('auto', *PRESETS))})")
    if support is None:
        return _open_fitted(model, reject_below, is_preset=is_preset)
    files, names = _read_support(support)
    classifier = FewShotClassifier(
        None if is_preset else model,
        preset=model if is_preset else "auto",
        reject_below=reject_below,
        transductive=transductive,
    )
    try:
        return classifier.fit(files, names)
    except ValueError as error:
        raise BadInput(f"--support {support}: {error}") from error


def _open_fitted(model: str, reject_below: float | None, *, is_preset: bool) -> FewShotClassifier:
    """A model with the classes that it remembers."""
    from autometa.classifier import FewShotClassifier  # noqa: PLC0415 - imports torch
    from autometa.classifier.sources import RECORD  # noqa: PLC0415
    from autometa.core.files import DESCRIPTION  # noqa: PLC0415

    if is_preset or not (Path(model) / RECORD).exists():
        half = not is_preset and (Path(model) / DESCRIPTION).exists()
        raise click.UsageError(
            f"MODEL {model}: remembers no classes; add --support DIR with a subfolder of images for each class"
            + (f" (it has no {RECORD}: if a fit was interrupted, fit again with --overwrite)" if half else "")
        )
    loaded = FewShotClassifier.load(model)
    if loaded.summary()["image_size"] is None:
        raise BadInput(f"MODEL {model}: was made of features, so it classifies no images; name another model")
    if reject_below is not None:
        try:
            loaded.set_params(reject_below=reject_below)._calibrate()
        except ValueError as error:
            raise BadInput(f"MODEL {model}: {error}") from error
    return loaded


def _read_support(support: Path) -> tuple[Sequence[Path], list[str]]:
    """Labelled images that can be read, and their classes; the others are named."""
    from ingestion import read_labelled  # noqa: PLC0415 - imports Pillow
    from ingestion.sources import summarise  # noqa: PLC0415
    from ingestion.survey import find_broken  # noqa: PLC0415

    labelled = read_labelled(support)
    broken = find_broken(labelled)
    for note in summarise(labelled.notes) if level() > QUIET else ():
        click.echo(f"--support: {note}", err=True)
    for line in summarise(f"set aside: {labelled.files[row]} ({reason})" for row, reason in broken.items()):
        click.echo(f"--support: {line}", err=True)
    labelled = labelled.without(broken)
    return labelled.files, [labelled.class_names[label] for label in labelled.labels]


def _answer(classifier: FewShotClassifier, files: Sequence[Path]) -> Iterator[Answer]:
    """An answer for each file, in order."""
    from ingestion.folders import printable  # noqa: PLC0415 - imports Pillow

    chunk = len(files) if classifier.transductive else CHUNK
    for start in range(0, len(files), chunk):
        part = files[start : start + chunk]
        good, errors = classifier.read(part)
        answers: Iterator[Any] = iter(())
        if good:
            answers = iter(zip(*classifier.classify(good), strict=True))
        for place, file in enumerate(part):
            if place in errors:
                yield Answer(printable(file), error=printable(errors[place]))
            else:
                label, row = next(answers)
                yield Answer(printable(file), printable(str(label)), tuple(map(float, row)))


def _record(answer: Answer, names: Sequence[str]) -> dict[str, Any]:
    if answer.error:
        return {"image": answer.image, "error": answer.error}
    rounded = (round(p, DECIMALS) for p in answer.probabilities)
    return {
        "image": answer.image,
        "class": answer.label,
        "probabilities": dict(zip(names, rounded, strict=True)),
    }


def _table(answers: Sequence[Answer], names: Sequence[str]) -> str:
    """The answers as CSV, an empty row for what could not be read."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", "class", *names])
    for answer in answers:
        rounded: list[object] = [round(p, DECIMALS) for p in answer.probabilities]
        rounded = rounded or [""] * len(names)
        writer.writerow([answer.image, answer.label, *rounded])
    return file.getvalue()
