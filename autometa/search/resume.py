"""What an earlier run, finished or killed, has left in the folder where learners are saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from autometa.backbones import View
from autometa.core.errors import AutometaError
from autometa.core.files import DESCRIPTION
from autometa.core.journals import cut_damaged_end, read
from autometa.heads import HEADS
from autometa.model.fitted_learner import FittedLearner
from autometa.planning.stage_log import JOURNAL
from autometa.search.study import TrialResult

BOOTSTRAP, FINAL = "bootstrap", "final"
"""Stages of a learner's record: before the search, and after it."""


@dataclass(frozen=True)
class EarlierRun:
    """A learner that an earlier run has saved, and what its record says."""

    learner: FittedLearner

    @property
    def accuracy(self) -> float:
        """Normalised accuracy on validation episodes, -1 where the record has none."""
        return float(self.learner.validation.get("normalised_accuracy", -1.0))

    @property
    def is_final(self) -> bool:
        """Whether it came at the end of a whole search: its figure is that of fresh episodes."""
        return self.learner.validation.get("stage") == FINAL


def load_earlier(folder: Path, report: Callable[[str], None]) -> EarlierRun | None:
    """The learner that an earlier run has saved in `folder`; None where there is none, where it is but a bootstrap,
    which any run makes anew, or, with a reported reason, where it cannot be used."""
    if not (folder / DESCRIPTION).exists():
        return None
    try:
        earlier = EarlierRun(FittedLearner.load(folder, report))
    except (AutometaError, RuntimeError, ValueError, KeyError) as error:
        report(f"the learner of an earlier run cannot be used: {type(error).__name__}: {error}")
        return None
    if earlier.learner.validation.get("stage") == BOOTSTRAP:
        return None
    report(f"resumed: the learner of an earlier run serves at once ({100 * earlier.accuracy:.1f} %)")
    return earlier


def earlier_results(folder: Path) -> list[TrialResult]:
    """What the journal in `folder` says of heads, as search parameters. Left out are those that ran out of time or
    failed, which may do better now, heads that there are no more, and families, which are trained anew."""
    found = []
    for row in read(folder / JOURNAL):
        known = (
            "accuracy" in row or "first_look_accuracy" in row
        )  # the first release did not write the latter
        if known and (head := row.get("head")) in HEADS:
            view = View.of(row["view"])
            params = {"view": str(replace(view, flip=False)), "flip": view.flip, "head": head}
            params |= HEADS[head].search_params(head, row["params"])
            found.append(TrialResult(params, row.get("accuracy", -1.0), row.get("first_look_accuracy")))
    return found


def tidy(folder: Path, report: Callable[[str], None]) -> None:
    """Cut off what a kill has left half written at the end of the journal in `folder`; half files go too."""
    for unfinished in folder.glob(".*.[0-9]*"):  # see `core.files.write_tensors`
        unfinished.unlink()
    if cut := cut_damaged_end(folder / JOURNAL):
        report(f"{JOURNAL}: its damaged end is cut off ({cut} bytes)")
