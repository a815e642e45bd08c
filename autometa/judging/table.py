"""The verdict for people: rows of a table, and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from autometa.judging.verdict import Standing, Verdict

HEADINGS = (
    "rank", "submission", "score", "95 %", "over seeds", "gap to the best", "not answered", "failed", "seconds",
    "longest",
)  # fmt: skip


def table_rows(verdict: Verdict) -> list[tuple[str, ...]]:
    """A row for each submission, best first, under `HEADINGS`."""
    runs = len(verdict.seeds)
    return [
        (
            str(each.rank),
            each.submission,
            f"{each.accuracy:.1f}",
            _show_width(each),
            "" if each.seed_sd is None else f"± {each.seed_sd:.1f}",
            show_gap(each),
            f"{each.unanswered} of {each.tasks}" if each.unanswered else "0",
            f"{len(each.failed)} of {runs}" if each.failed else "0",
            f"{each.wall_s:.1f}",
            f"{each.longest_s:.1f}",
        )
        for each in verdict.standings
    ]


def _show_width(standing: Standing) -> str:
    """The interval of its accuracy; one task has none."""
    return f"± {standing.ci95:.1f}" if standing.tasks > 1 else "(one task)"


def show_gap(standing: Standing) -> str:
    """The gap to the best with its interval; a dash for the best."""
    if standing.gap is None:
        return "–"
    width = "" if standing.gap_ci95 is None else f" ± {standing.gap_ci95:.1f}"
    return f"{standing.gap:+.1f}{width}"


def tell(verdict: Verdict) -> list[str]:
    """Sentences: who is best and who cannot be told from it, and which runs failed."""
    best = verdict.standings[0]
    lines = []
    if verdict.scored and len(verdict.standings) > 1:
        level = [each.submission for each in verdict.standings[1:] if is_level(each)]
        besides = f"; not told from it by these tasks: {join(level)}" if level else ""
        lines.append(f"best: {best.submission}, {best.accuracy:.1f} {_show_width(best)} %{besides}")
    lines += [
        f"failed, counts as chance: {each.submission}, seed {run.seed}: {run.reason}"
        for each in verdict.standings
        for run in each.failed
    ]
    return lines


def is_level(standing: Standing) -> bool:
    """Whether the interval of the gap to the best holds zero."""
    if standing.gap is None:
        return True
    return standing.gap_ci95 is None or abs(standing.gap) <= standing.gap_ci95


def join(names: Sequence[str], most: int = 8) -> str:
    """Names, of many only the first."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
