"""`python -m ingestion.truth`: the truth of the tasks that a seed draws, without running a submission.

Needed to score predictions of the original ingestion program, which saves no truth.
"""

from __future__ import annotations

from pathlib import Path

import click

from ingestion.errors import InputError
from ingestion.outputs import write_truth
from ingestion.refused import refusing
from ingestion.sources import read_source
from ingestion.splits import split_source
from ingestion.tasks import TaskConfig, draw_test_tasks


@click.command()
@click.option("--input_data_dir", "folder", type=click.Path(path_type=Path), required=True)
@click.option("--seed", type=int, default=93)
@click.option("--test_tasks_per_dataset", "tasks", type=int, default=100)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@refusing()
def main(folder: Path, seed: int, tasks: int, output: Path) -> None:
    """Write the query labels of the tasks that the original program draws from a MetaDL root."""
    source = read_source(folder)
    if not source.is_metadl_root:
        raise InputError(f"{folder}: no info/meta_splits.txt; only a MetaDL root fixes its tasks by the seed")
    split = split_source(source, TaskConfig(), seed=seed)
    draws = list(draw_test_tasks(split.test, split.test_config, tasks, seed))
    write_truth(output, split.test, draws, seed)


if __name__ == "__main__":
    main()
