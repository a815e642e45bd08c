"""A judging from start to end: the units that are missing are done, the ledger grows, and a verdict follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autometa.judging.executor import RunExecutor
from autometa.judging.ledger import Ledger, Row
from autometa.judging.submissions import Submission, Unit

Show = Callable[[str], None]


def list_units(submissions: Sequence[Submission], seeds: Sequence[int]) -> list[Unit]:
    """All units. Submissions take turns, so that other load on the machine affects all of them."""
    return [Unit(submission, seed) for seed in seeds for submission in submissions]


def missing_units(
    units: Sequence[Unit], ledger: Ledger, show: Show, *, retry_failed: bool = False
) -> list[Unit]:
    """The units that the ledger does not have: those of a submission whose files have changed count as missing, and
    so do failed ones with `retry_failed`."""
    known, missing = ledger.rows(), list[Unit]()
    changed: dict[str, None] = {}
    for unit in units:
        row = known.get(unit.key)
        if row is not None and row.digest != unit.submission.digest:
            changed[unit.submission.name] = None
            row = None
        if row is None or (retry_failed and row.status == "failed"):
            missing.append(unit)
    for name in changed:
        show(f"{name}: its files have changed since it was judged, so it runs again")
    return missing


def judge(units: Sequence[Unit], ledger: Ledger, executor: RunExecutor, show: Show) -> int:
    """Do these units; each is in the ledger as soon as it is done. How many were done. LedgerFull where the ledger
    cannot be written, KeyboardInterrupt where somebody ended it: then the units that were done stay."""
    try:
        for unit in units:
            executor.submit(unit)
        for done in range(1, len(units) + 1):
            row = executor.wait()
            if row is None:
                raise KeyboardInterrupt
            ledger.add(row)
            show(f"[{done}/{len(units)}] {describe_row(row)}")
    finally:
        executor.close()
    return len(units)


def describe_row(row: Row) -> str:
    """A run that is done, in one line."""
    name = f"{row.submission}, seed {row.seed}"
    if row.status == "failed":
        return f"{name}: failed after {row.wall_s:.1f} s: {row.reason}"
    mean = 100 * sum(row.accuracies) / len(row.accuracies)
    lost = (
        f", {row.unanswered} of {len(row.accuracies)} tasks not answered ({row.reason})"
        if row.unanswered
        else ""
    )
    return f"{name}: {mean:.1f} %, {row.wall_s:.1f} s{lost}"
