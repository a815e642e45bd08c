"""What everyone who fits should read, not only those who watch every line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingestion.datasets import Dataset
from ingestion.folders import counted, shortlist
from ingestion.sources import Source, summarise

SERIOUS = "no portfolio is made", "the learner is over"
"""How lines of a search begin that say why a limit cost much, or is not kept."""


class Note(str):
    """A line that is shown by default."""

    __slots__ = ()


Report = Callable[[str], None]


@dataclass
class Listener:
    """Passes the lines of a search on, the serious ones as notes; `why`: the last of these."""

    report: Report
    why: str = ""

    def __call__(self, line: str) -> None:
        """Hear one line."""
        if line.startswith(SERIOUS):
            self.why, line = line, Note(line)
        self.report(line)

    def hear_interrupt(self) -> None:
        """Somebody has pressed Ctrl-C."""
        self.why = "the search was interrupted"
        self.report(Note("interrupted: what was learned so far is saved; a second interrupt stops the work"))


def report_notes(lines: Iterable[str], report: Report) -> None:
    """Report these lines, or the first of them, as notes."""
    for line in summarise(lines):
        report(Note(line))


def tell_classes(folder: Path, datasets: Sequence[Dataset], report: Report) -> None:
    """Say which classes are learned from, and warn where they may be folders of classes."""
    several = len(datasets) > 1
    names = [f"{each.name}/{name}" if several else name for each in datasets for name in each.class_names]
    images = sum(len(each.files) for each in datasets)
    report(
        Note(f"{counted(len(names), 'class', 'classes')} ({shortlist(names)}), {counted(images, 'image')}")
    )
    if all(_is_nested(folder, each) for each in datasets):
        report(
            Note(
                f"warning: every class folder of {folder} holds only subfolders, and no image itself; if these "
                f"subfolders are the classes, and not {shortlist(names)}, put them all into one folder and name that"
            )
        )


def _is_nested(folder: Path, dataset: Dataset) -> bool:
    """Whether all images lie in subfolders of the folders that their classes are called after."""
    root = folder.resolve()
    for file, label in zip(dataset.files, dataset.labels.tolist(), strict=True):
        above = file.relative_to(root).parts[:-1] if file.is_relative_to(root) else ()
        name = dataset.class_names[label]
        if name not in above[:-1] or above.index(name) == len(above) - 1:
            return False
    return bool(dataset.files)


def tell_lost(before: Source, left: Mapping[str, Sequence[str]], report: Report) -> None:
    """Name the classes that had images before, and are not among those that are left of each dataset."""
    lost = [
        f"{name}/{each}" if len(before.datasets) > 1 else each
        for name, dataset in before.datasets.items()
        for each in dataset.class_names
        if each not in set(left.get(name, ()))
    ]
    if lost:
        number = counted(len(lost), "class", "classes")
        report(Note(f"{number} without an image that can be used, left out: {shortlist(lost)}"))
