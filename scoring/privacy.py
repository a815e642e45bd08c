"""Hiding what participants of a competition may not see: names of datasets, and the classes of the test."""

import re
from collections.abc import Callable
from dataclasses import replace

from scoring.run_info import RunInfo
from scoring.text import natural_key
from scoring.truth import Truth


def _aliases(truth: Truth) -> dict[str, str]:
    return {name: f"Dataset {i}" for i, name in enumerate(sorted(truth.datasets, key=natural_key), 1)}


def name_hider(truth: Truth) -> Callable[[str], str]:
    """A function that replaces the names of datasets in a text, where they are whole words, by "Dataset i"."""
    aliases = _aliases(truth)
    longest_first = sorted(map(re.escape, aliases), key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)")
    return lambda text: pattern.sub(lambda match: aliases[match[0]], text)


def hide_classes(run: RunInfo) -> RunInfo:
    """Of what was left out and of the notes on the data only the number is kept, since they name classes, which
    identify a dataset."""
    return replace(
        run, set_aside=_only_number(run.set_aside, "entries"), notes=_only_number(run.notes, "notes")
    )


def _only_number(lines: tuple[str, ...], what: str) -> tuple[str, ...]:
    return (f"{len(lines)} {what}, not shown because they name private data",) if lines else ()


def hide_names(truth: Truth, run: RunInfo) -> tuple[Truth, RunInfo]:
    """Replace every dataset name by "Dataset i", i from 1 in natural order of the names, also in reasons and notes;
    and hide classes."""
    aliases, hide = _aliases(truth), name_hider(truth)
    hidden_run = replace(
        hide_classes(run),
        failures={task: hide(reason) for task, reason in run.failures.items()},
        facts={key: hide(value) for key, value in run.facts.items()},
        options={key: hide(value) for key, value in run.options.items()},
        stages=tuple((hide(name), seconds) for name, seconds in run.stages),
        stage_times=tuple(
            replace(row, stage=hide(row.stage), note=hide(row.note)) for row in run.stage_times
        ),
    )
    tasks = tuple(replace(task, dataset=aliases[task.dataset]) for task in truth.tasks)
    return replace(truth, tasks=tasks), hidden_run
