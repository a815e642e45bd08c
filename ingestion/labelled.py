"""Any folder of labelled images as one dataset, for whoever fits a classifier to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ingestion.datasets import Dataset, dataset_from_names
from ingestion.doubles import set_doubles_aside
from ingestion.errors import InputError
from ingestion.sources import read_source, summarise


def read_labelled(folder: Path) -> Dataset:
    """All labelled images under a folder: a subfolder per class, `labels.csv`, or `train`, `val` and `test` of these.
    Doubles are set aside. `notes` say how the folder was read, in a few lines.

    InputError if it holds several datasets, or nothing that can be used.
    """
    source = set_doubles_aside(read_source(folder))
    datasets = list(source.datasets.values())
    if len(datasets) > 1 and source.roles is None:
        raise InputError(
            f"{folder}: holds {len(datasets)} datasets ({', '.join(source.datasets)}); name one of them"
        )
    files = [file for dataset in datasets for file in dataset.files]
    names = [dataset.class_names[label] for dataset in datasets for label in dataset.labels.tolist()]
    whole = datasets[0] if len(datasets) == 1 else dataset_from_names(folder.resolve().name, files, names)
    lines = list(source.notes)
    if source.roles:  # of no use here
        lines[lines.index(source.roles.note)] = (
            f"the classes of {', '.join(source.datasets)} are used together"
        )
    return replace(whole, notes=tuple(summarise(lines)))
