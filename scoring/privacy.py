"""Hiding the names of datasets: "Dataset i" replaces every name."""

import re
from dataclasses import replace

from scoring.run_info import RunInfo
from scoring.text import natural_key
from scoring.truth import Truth


def hide_names(truth: Truth, run: RunInfo) -> tuple[Truth, RunInfo]:
    """Replace every dataset name by "Dataset i", i from 1 in natural order of the names.

    In reasons and notes, names are replaced where they are whole words. Of the list of what was left out, only the
    length is kept, since it names classes, which identify a dataset too.
    """
    aliases = {name: f"Dataset {i}" for i, name in enumerate(sorted(truth.datasets, key=natural_key), 1)}
    longest_first = sorted(map(re.escape, aliases), key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)")

    def hide(text: str) -> str:
        return pattern.sub(lambda match: aliases[match[0]], text)

    count = len(run.set_aside)
    hidden_run = replace(
        run,
        failures={task: hide(reason) for task, reason in run.failures.items()},
        facts={key: hide(value) for key, value in run.facts.items()},
        notes=tuple(map(hide, run.notes)),
        stages=tuple((hide(name), seconds) for name, seconds in run.stages),
        stage_times=tuple(
            replace(row, stage=hide(row.stage), note=hide(row.note)) for row in run.stage_times
        ),
        set_aside=(f"{count} entries, not shown because they name private data",) if count else (),
    )
    tasks = tuple(replace(task, dataset=aliases[task.dataset]) for task in truth.tasks)
    return replace(truth, tasks=tasks), hidden_run
