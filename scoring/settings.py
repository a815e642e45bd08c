"""Settings and result of `scoring.score`."""

from dataclasses import dataclass
from pathlib import Path

from scoring.summary import Estimate


@dataclass(frozen=True)
class ScoringSettings:
    """One scoring run. Names and defaults are those of the original program if it has them.

    `truth`: default `<results_dir>/truth.json`; if it is missing and `input_data_dir` is given, the truth is drawn
    again with `seed` and `test_tasks_per_dataset`, which have no other use. `debug_mode`: 0 computes only the main
    metric. `overwrite_previous_results`: False renames an existing output folder, True empties it.
    `private_information`: True hides the names of datasets, and all that `hide_samples` does. `hide_samples`: True
    leaves pictures and names of classes of the test out of the report, which participants may read.
    """

    results_dir: Path = Path("../../ingestion_output")
    output_dir_scoring: Path = Path("../../scoring_output")
    truth: Path | None = None
    input_data_dir: Path | None = None
    seed: int = 93
    test_tasks_per_dataset: int = 100
    debug_mode: int = 1
    private_information: bool = False
    hide_samples: bool = False
    overwrite_previous_results: bool = False


@dataclass(frozen=True)
class GroupScore:
    """The tasks of one dataset, or all: `mean` and `ci95` (half-width) of the normalized accuracy.

    `missing` of the `tasks` had no usable prediction and score as chance. `metrics` holds every computed
    metric by key: normalized_accuracy, accuracy, macro_f1, macro_precision, macro_recall.
    """

    name: str
    mean: float
    ci95: float
    tasks: int
    missing: int
    metrics: dict[str, Estimate]


@dataclass(frozen=True)
class ScoreSummary:
    """The result: `overall`, `datasets` in natural order, times in seconds (None: unknown), files, notes."""

    overall: GroupScore
    datasets: tuple[GroupScore, ...]
    duration_s: float | None
    time_budget_s: float | None
    notes: tuple[str, ...]
    output_dir: Path
    report: Path
