"""The report of the arena: rows for machines, tables for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from _arena_results import Result, Round, average_ranks, compare, estimate, rounds
from _learner_report import Row, row

CONTROLLER = "autometa"
"""The bundle that the `controller` rows, the coverage and the gains are about."""
RIVALS = ("fixed", "strong", "six_modes", "all_views")
"""Bundles without a search, over which autometa should gain."""


def rows(results: Sequence[Result]) -> list[Row]:
    """Every number of the report; the reference of a dataset's row is the best other bundle there, over the seeds
    that it ran with, which may be others."""
    made = []
    for of in rounds(results):
        where = f"arena/{of.budget_s:g}"
        for dataset in of.datasets:
            runs = {name: [r for (r,) in of.of(name, dataset=dataset)] for name in of.bundles}
            found = {name: estimate(mine) for name, mine in runs.items() if mine}
            for name, own in found.items():
                others = [other.mean for rival, other in found.items() if rival != name]
                more: dict[str, Any] = {"ci95": own.ci95, "worst_seed": own.worst_seed}
                if own.seed_sd is not None:
                    more["seed_sd"] = own.seed_sd
                more["wall_s"] = float(np.mean([r.wall_s for r in runs[name]]))
                best = max(others, default=None)
                made.append(row(f"{where}/{name}/{dataset}", own.mean, "%", best, **more))
        cells = len(of.common().cells)
        made += [
            row(f"{where}/{name}/rank", rank, "rank", pairs=cells) for name, rank in average_ranks(of).items()
        ]
        made += gain_rows(of)
    return made + controller_rows(results)


def gain_rows(of: Round) -> list[Row]:
    """What autometa gains over each of `RIVALS` that it met, in % points on the same tasks. `ci95` is over tasks,
    `ci95_sets` over datasets, around their mean `value_sets`, `seed_sd` the spread over seeds; none of them is given
    where there is only one."""
    made = []
    for rival in RIVALS:
        found = compare(of, CONTROLLER, rival)
        if found is None:
            continue
        more: dict[str, Any] = {"ci95": found.ci95, "ci95_sets": found.set_ci95}
        more = {name: width for name, width in more.items() if math.isfinite(width)}
        if found.seed_sd is not None:
            more["seed_sd"] = found.seed_sd
        more |= {"value_sets": found.set_gain, "sets": found.sets, "seeds": found.seeds}
        name = f"arena/{of.budget_s:g}/{CONTROLLER}/gain_over_{rival}"
        made.append(row(name, found.gain, "% points", **more))
    return made


def controller_rows(results: Iterable[Result]) -> list[Row]:
    """Over all runs of autometa: the share whose mean test accuracy lies in the 95 % interval that the learner
    reports, the latest first learner, and the number of overruns."""
    runs = [r for r in results if r.bundle == CONTROLLER]
    first = [r.first_learner_s for r in runs if r.first_learner_s is not None]
    covered = [r.covered for r in runs if r.covered is not None]
    made = [row("arena/coverage", float(np.mean(covered)), "share", runs=len(covered))] if covered else []
    if first:
        made.append(row("controller/first_learner_s", max(first), "s", runs=len(first)))
    if runs:
        made.append(row("controller/overruns", sum(r.overrun for r in runs), "runs", runs=len(runs)))
    return made


def markdown(results: Sequence[Result], ours: str) -> str:
    """Tables: a round for every budget, `ours` against the others, then what failed."""
    lines = []
    for of in rounds(results):
        lines += [*round_table(of), "", *rival_table(of, ours)]
    lines += [
        f"- Failed{'' if r.accuracies else ', counts as chance'}: {r}: {r.reason}"
        for r in results
        if r.failed
    ]
    machines = ", ".join(sorted({r.machine for r in results}))
    settings = ", ".join(sorted({f"`{r.settings}`" for r in results}))
    sharing = "; ".join(sorted({r.sharing or "runs at a time not known" for r in results}))
    return "\n".join([*lines, "", f"Options of the runs: {settings}. Machine: {machines}; {sharing}."]) + "\n"


def round_table(of: Round) -> list[str]:
    """One line per bundle, best rank first; in brackets the spread over seeds and the mean of the worst one, if there
    are several."""
    common, ranks = of.common(), average_ranks(of)
    datasets = " | ".join(of.datasets)
    n = len(common.cells)
    lines = [
        f"**{of.budget_s:g} s**; rank and mean over {n} of {len(of.cells)} pairs of dataset and seed",
        "",
        f"| Bundle | Rank | Mean | {datasets} | Seconds, longest | Overruns | Not answered |",
        "|---" * (6 + len(of.datasets)) + "|",
    ]
    for name in sorted(of.bundles, key=lambda name: (ranks.get(name, 0), name)):
        runs = [run for (run,) in of.of(name)]
        accuracies = [cell_text(common.of(name))]
        accuracies += [cell_text(of.of(name, dataset=dataset)) for dataset in of.datasets]
        rank = f"{ranks[name]:.2f}" if name in ranks else ""
        seconds = [r.wall_s for r in runs]
        last = f"{np.mean(seconds):.0f}, {max(seconds):.0f} | {sum(r.overrun for r in runs)}"
        unanswered = sum(r.unanswered for r in runs)
        lines.append(f"| `{name}` | {rank} | {' | '.join(accuracies)} | {last} | {unanswered} |")
    return lines


def cell_text(runs: Sequence[tuple[Result, ...]]) -> str:
    """Mean and interval; with several seeds their standard deviation and the worst one; empty without runs."""
    if not runs:
        return ""
    own = [result for (result,) in runs]
    found = estimate(own)
    seeds = "" if found.seed_sd is None else f" (sd {found.seed_sd:.1f}, worst {found.worst_seed:.1f})"
    return f"{found.mean:.1f} ± {found.ci95:.1f}{seeds}"


def rival_table(of: Round, ours: str) -> list[str]:
    """`ours` against each other bundle: the difference over tasks, the mean difference over datasets, and on how many
    datasets it is better or worse."""
    rivals = {name: compare(of, ours, name) for name in of.bundles if name != ours}
    met = {name: found for name, found in rivals.items() if found is not None}
    if not met:
        return []
    over = "Difference | Spread over seeds | Mean of datasets"
    lines = [f"| `{ours}` against | {over} | Better on | Not different on | Worse on |", "|---" * 7 + "|"]
    for name, found in met.items():
        worse = f"{len(found.worse)}" + (f": {', '.join(found.worse)}" if found.worse else "")
        counts = f"{len(found.better)} | {len(found.same)} | {worse}"
        by_set = f"{found.set_gain:+.1f} ± {found.set_ci95:.1f}" if found.sets > 1 else ""
        seeds = "" if found.seed_sd is None else f"{found.seed_sd:.1f}"
        lines.append(f"| `{name}` | {found.gain:+.1f} ± {found.ci95:.1f} | {seeds} | {by_set} | {counts} |")
    return [*lines, ""]
