"""What the report shows beside the scores, as far as a run has left it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scoring.choices import read_choices
from scoring.privacy import name_hider
from scoring.reproduce import command_line, read_fingerprints, read_versions
from scoring.run_info import RunInfo
from scoring.samples import Episode, HardClass, find_hardest, read_samples, show_episodes
from scoring.settings import ScoringSettings
from scoring.summary import TaskScore
from scoring.truth import Truth

if TYPE_CHECKING:
    from scoring.choices_file import Choices


@dataclass(frozen=True)
class Material:
    """None or empty where a run has not left it, or where it is hidden; `notes` say what was ignored."""

    choices: Choices | None = None
    hardest: tuple[HardClass, ...] = ()
    episodes: tuple[Episode, ...] = ()
    command: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    fingerprints: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def gather_material(
    settings: ScoringSettings, named: Truth, truth: Truth, run: RunInfo, tasks: Sequence[TaskScore]
) -> Material:
    """Read all that is there. `named` is the truth with the names of datasets, `truth` the one that is shown."""
    folder, private = settings.results_dir, settings.private_information
    choices, notes = read_choices(folder, name_hider(named) if private else None)
    hardest: tuple[HardClass, ...] = ()
    episodes: tuple[Episode, ...] = ()
    if not private and not settings.hide_samples:
        samples, more = read_samples(folder)
        notes += more
        if samples is not None:
            hardest = find_hardest(samples, truth, tasks)
            episodes = show_episodes(samples, truth, folder)
    return Material(
        choices,
        hardest,
        episodes,
        command_line(run.options),
        tuple(read_versions(folder)),
        () if private else tuple(read_fingerprints(folder)),
        tuple(notes),
    )
