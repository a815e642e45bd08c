"""A page in the browser: drop a few images of each class, drop one more, see the probabilities.

Gradio, which draws the page, is imported here alone and only when it is needed: the extra `playground` installs it.
The page is served to this machine only. Nothing is sent elsewhere: Gradio's own statistics are switched off, fonts
are those of the system, and what is dropped lies in a folder that is deleted in the end.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from autometa.core.errors import AutometaError, ConfigError, DataError

MOST_CLASSES = 8
FIRST_CLASSES = 2
HOST = "127.0.0.1"
WAITING = "Drop images of at least two classes, then one to classify."
FONTS = ["system-ui", "sans-serif"]
MONO_FONTS = ["ui-monospace", "monospace"]
SILENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""What keeps Gradio from sending anything."""
STYLE = """
footer { display: none !important; }
.gradio-container { width: 100% !important; max-width: 70rem !important; margin: auto; }
.labelled { border: 0 !important; }
"""

Probabilities = dict[str, float]


class Classifier(Protocol):
    """What the page needs of a classifier; `autometa.FewShotClassifier` is one."""

    @property
    def classes_(self) -> Any:
        """Names of the classes, in the order of the columns of probabilities."""

    def fit(self, X: Any, y: Any) -> Any:
        """Learn these classes from files of images and their names."""

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Probabilities [files, classes]."""


class Answers:
    """Answers for what lies on the page. A set of labelled images is learned once, however often it is asked."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier, self._lock = classifier, threading.Lock()
        self._learned: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def of(
        self, query: str | None, names: Sequence[str], images: Sequence[Sequence[str]]
    ) -> Probabilities | None:
        """Probabilities by name of a class for the image in the file `query`; `images` are the files of each class.
        Classes without images do not count. None where fewer than two are left, or where there is no query.

        DataError where two classes have the same name.
        """
        given = [
            (name.strip() or f"class {place}", tuple(files))
            for place, (name, files) in enumerate(zip(names, images, strict=True), start=1)
            if files
        ]
        twice = {name for name, _ in given if [each for each, _ in given].count(name) > 1}
        if twice:
            raise DataError(f"two classes are called `{min(twice)}`; rename one of them")
        if query is None or len(given) < 2:
            return None
        with self._lock:
            if tuple(given) != self._learned:
                self._learned = ()
                files = [file for _, files in given for file in files]
                self._classifier.fit(files, [name for name, files in given for _ in files])
                self._learned = tuple(given)
            probabilities = self._classifier.predict_proba([query])[0]
            names_of_columns = [str(name) for name in self._classifier.classes_]
        return dict(zip(names_of_columns, map(float, probabilities), strict=True))


def import_gradio() -> Any:
    """Gradio, told to send nothing. ConfigError with the command that installs it where it is missing."""
    os.environ.update(SILENT)
    try:
        import gradio  # noqa: PLC0415 - an optional package
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ConfigError(
            "the playground needs the package gradio, which is not installed; run: pip install 'autometa[playground]'"
        ) from error
    return gradio


def build_page(gradio: Any, answers: Answers, title: str) -> Any:
    """The page, as Gradio's `Blocks`."""

    def answer(count: float, query: str | None, *fields: Any) -> tuple[Probabilities | None, str]:
        shown = int(count)
        names, galleries = fields[:shown], fields[MOST_CLASSES : MOST_CLASSES + shown]
        files = [[file for file, _ in gallery or []] for gallery in galleries]
        try:
            found = answers.of(query, names, files)
        except (AutometaError, ValueError) as error:
            return None, f"**{error}**"
        return found, "" if found else WAITING

    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        gradio.Markdown(f"# {title}")
        with gradio.Row():
            with gradio.Column(scale=3):
                count, names, galleries = _draw_classes(gradio)
            with gradio.Column(scale=2):
                query = gradio.Image(
                    label="Which class is this?",
                    type="filepath",
                    format="png",
                    image_mode=None,  # as it is: examples are not converted either
                    sources=["upload"],
                )
                state = gradio.Markdown(WAITING)
                label = gradio.Label(label="Probabilities", num_top_classes=MOST_CLASSES)
        changed = [part.change for part in (count, query, *galleries)] + [name.blur for name in names]
        gradio.on(
            changed, answer, [count, query, *names, *galleries], [label, state], show_progress="minimal"
        )
    return page


def _draw_classes(gradio: Any) -> tuple[Any, list[Any], list[Any]]:
    """The number of classes, and a name and a place for images of each."""
    count = gradio.Slider(2, MOST_CLASSES, value=FIRST_CLASSES, step=1, label="Classes")
    groups, names, galleries = [], [], []
    for place in range(1, MOST_CLASSES + 1):
        with gradio.Group(visible=place <= FIRST_CLASSES) as group:
            names.append(gradio.Textbox(f"class {place}", label=f"Name of class {place}"))
            galleries.append(
                gradio.Gallery(
                    label=f"Images of class {place}",
                    type="filepath",
                    file_types=["image"],
                    columns=6,
                    height=210,
                    interactive=True,
                    elem_classes="labelled",
                )
            )
        groups.append(group)

    def show(wanted: float) -> list[Any]:
        return [gradio.Group(visible=place < wanted) for place in range(MOST_CLASSES)]

    count.change(show, count, groups, show_progress="hidden")
    return count, names, galleries


@contextmanager
def serve(
    classifier: Classifier, title: str, *, port: int | None = None, browser: bool = False
) -> Iterator[str]:
    """Serve the page to this machine; its address. ConfigError where the port is taken or Gradio is missing."""
    gradio = import_gradio()
    with tempfile.TemporaryDirectory(prefix="autometa-playground-") as dropped:
        os.environ["GRADIO_TEMP_DIR"] = dropped
        page = build_page(gradio, Answers(classifier), title)
        theme = gradio.themes.Default(font=FONTS, font_mono=MONO_FONTS)
        try:
            _, address, _ = page.launch(
                server_name=HOST,
                server_port=port,
                inbrowser=browser,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                theme=theme,
                css=STYLE,
                allowed_paths=[str(Path(dropped))],
            )
        except OSError as error:
            raise ConfigError(f"--port {port}: it cannot be used ({error}); choose another one") from error
        try:
            yield str(address)
        finally:
            page.close(verbose=False)
