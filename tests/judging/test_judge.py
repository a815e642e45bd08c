"""A judging with runs that are made up: nothing is lost, and one failure costs one row."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from made_up_runs import IDENTITY, SKILL, TASKS, made_up, one_by_one, opened, submissions, units

from autometa.core.errors import ConfigError
from autometa.judging.executor import in_threads
from autometa.judging.judge import judge, list_units, missing_units
from autometa.judging.ledger import Ledger, LedgerFull, Row
from autometa.judging.submissions import Unit
from autometa.judging.table import is_level, table_rows, tell
from autometa.judging.verdict import Verdict, decide

NAMES = tuple(SKILL)
SEEDS = (0, 1, 2)


def run(
    ledger: Ledger, play: Callable[[Unit], Row | None] = made_up, *, retry_failed: bool = False
) -> list[str]:
    """Judge what is missing; the lines that were shown."""
    shown: list[str] = []
    missing = missing_units(units(*NAMES, seeds=SEEDS), ledger, shown.append, retry_failed=retry_failed)
    judge(missing, ledger, one_by_one(play), shown.append)
    return shown


def verdict_of(ledger: Ledger) -> Verdict:
    return decide(IDENTITY, NAMES, SEEDS, ledger.rows(), TASKS)


def test_what_a_run_raises_costs_its_own_row(tmp_path: Path) -> None:
    def play(unit: Unit) -> Row:
        if unit.key == ("fair", 1):
            raise OSError(28, "No space left on device")
        if unit.key == ("bad", 2):
            raise MemoryError
        return made_up(unit)

    ledger = opened(tmp_path / "runs.jsonl")
    shown = run(ledger, play)
    rows = ledger.rows()
    assert len(shown) == len(rows) == 9
    assert {key for key, row in rows.items() if row.status == "failed"} == {("fair", 1), ("bad", 2)}
    assert "No space left" in rows["fair", 1].reason
    fair = next(each for each in verdict_of(ledger).standings if each.submission == "fair")
    assert fair.seed_means[1] == 0 and fair.unanswered == TASKS and fair.tasks == 3 * TASKS
    assert [each.seed for each in fair.failed] == [1]
    run(ledger, retry_failed=True)
    assert not any(each.failed for each in verdict_of(ledger).standings)


@pytest.mark.parametrize("done", [0, 1, 5, 8])
def test_a_ledger_that_went_on_after_a_kill_equals_the_undisturbed_one(tmp_path: Path, done: int) -> None:
    whole, killed = opened(tmp_path / "whole.jsonl"), opened(tmp_path / "killed.jsonl")
    run(whole)
    left = iter(range(done))

    def play(unit: Unit) -> Row:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return made_up(unit)

    with pytest.raises(KeyboardInterrupt):
        run(killed, play)
    with killed.file.open("ab") as stream:
        stream.write(b'{"submission": "good", "se')  # as a kill leaves it
    again = opened(killed.file)
    assert len(again.rows()) == done and again.cut_bytes > 0
    run(again)
    assert killed.file.read_bytes() == whole.file.read_bytes()
    assert verdict_of(again) == verdict_of(whole)


def test_a_submission_whose_files_have_changed_runs_again(tmp_path: Path) -> None:
    ledger, shown = opened(tmp_path / "runs.jsonl"), list[str]()
    run(ledger)
    good, *others = submissions(*NAMES)
    changed = [replace(good, digest="another"), *others]
    missing = missing_units(list_units(changed, SEEDS), ledger, shown.append)
    assert [unit.key for unit in missing] == [("good", seed) for seed in SEEDS]
    assert shown == ["good: its files have changed since it was judged, so it runs again"]


def test_a_ledger_that_cannot_be_written_ends_the_judging_and_what_was_done_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, add = opened(tmp_path / "runs.jsonl"), Ledger.add

    def fail(self: Ledger, row: Row) -> None:
        if row.seed == 1:
            raise LedgerFull("full")
        add(self, row)

    monkeypatch.setattr(Ledger, "add", fail)
    with pytest.raises(LedgerFull):
        run(ledger)
    assert len(ledger.rows()) == 3
    monkeypatch.setattr(Ledger, "add", add)
    run(ledger)
    assert len(ledger.rows()) == 9


def test_ranks_intervals_and_gaps_are_over_the_same_tasks(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "runs.jsonl")
    run(ledger)
    verdict = verdict_of(ledger)
    best, second, last = verdict.standings
    assert [each.rank for each in verdict.standings] == [1, 2, 3]
    assert (best.submission, best.gap, best.gap_ci95) == ("good", None, None)
    assert second.gap == pytest.approx(-10) and second.gap_ci95 == pytest.approx(0, abs=1e-9)  # paired
    assert second.ci95 > 2 and second.seed_sd is not None and second.seed_sd > 0
    assert not is_level(second) and last.gap == pytest.approx(-70)
    assert table_rows(verdict)[1][:2] == ("2", "fair") and tell(verdict)[0].startswith("best: good")


def test_equal_submissions_share_a_rank_and_are_not_told_apart(tmp_path: Path) -> None:
    rows = {unit.key: made_up(unit) for unit in units(*NAMES, seeds=SEEDS)}
    rows |= {("fair", seed): rows["good", seed].model_copy(update={"submission": "fair"}) for seed in SEEDS}
    verdict = decide(IDENTITY, NAMES, SEEDS, rows, TASKS)
    assert [each.rank for each in verdict.standings] == [1, 1, 3]
    assert "not told from it by these tasks: good" in tell(verdict)[0]


def test_runs_on_other_tasks_are_not_compared() -> None:
    rows = {unit.key: made_up(unit) for unit in units(*NAMES, seeds=SEEDS)}
    rows["bad", 1] = rows["bad", 1].model_copy(update={"drawn": "others"})
    with pytest.raises(ConfigError, match=r"bad, seed 1: its tasks were not those.*--overwrite"):
        decide(IDENTITY, NAMES, SEEDS, rows, TASKS)


def test_where_no_run_was_scored_all_are_at_chance() -> None:
    failed = {"status": "failed", "accuracies": (), "reason": "why", "drawn": ""}
    rows = {unit.key: made_up(unit).model_copy(update=failed) for unit in units(*NAMES, seeds=SEEDS)}
    verdict = decide(IDENTITY, NAMES, SEEDS, rows, TASKS)
    assert not verdict.scored
    assert {(each.rank, each.accuracy, each.unanswered) for each in verdict.standings} == {(1, 0, 3 * TASKS)}


def test_a_seed_without_a_scored_run_has_as_many_tasks_as_the_others() -> None:
    rows = {unit.key: made_up(unit) for unit in units(*NAMES, seeds=SEEDS)}
    failed = {"status": "failed", "accuracies": (), "reason": "why", "drawn": ""}
    rows |= {(name, SEEDS[-1]): rows[name, SEEDS[-1]].model_copy(update=failed) for name in NAMES}
    for usual in (1, 100 * TASKS):
        for each in decide(IDENTITY, NAMES, SEEDS, rows, usual).standings:
            assert each.tasks == len(SEEDS) * TASKS
            assert each.accuracy == pytest.approx(fmean(each.seed_means), abs=0.01)


def test_a_pool_does_some_at_a_time_and_ends_those_that_run(tmp_path: Path) -> None:
    together, most, stopped = list[int](), list[int](), threading.Event()

    def play(unit: Unit) -> Row | None:
        together.append(1)
        most.append(len(together))
        if stopped.wait(0.05 if unit.seed == 0 else 30):
            return None
        together.pop()
        return made_up(unit)

    ledger, began = opened(tmp_path / "runs.jsonl"), time.monotonic()
    pool = in_threads(play, 2, stopped.set)

    def show(line: str) -> None:
        if line.startswith("[3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(units(*NAMES, seeds=(0, 1)), ledger, pool, show)
    assert max(most) == 2 and {row.seed for row in ledger.rows().values()} == {0}
    assert time.monotonic() - began < 20
