"""What follows from points with known scores."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from grid_cases import GB, TASKS, curve, make_point, misfit
from scipy import stats

from autometa.tuning.curve import (
    compare,
    find_knee,
    largest_of,
    list_steps,
    make_cells,
    smallest_for,
    target_of,
    with_gaps,
)
from autometa.tuning.misfits import list_misfits
from autometa.tuning.options import TuneOptions
from autometa.tuning.pareto import pareto
from autometa.tuning.recommend import choose, recommend

RISING = {30.0: 60.0, 60.0: 70.0, 240.0: 72.0, 600.0: 72.1}


def test_gaps_are_paired_over_tasks_with_the_interval_of_scipy() -> None:
    points = curve(RISING)
    found = with_gaps(points)
    assert [found[0].gap_to_largest, found[0].gap_ci95] == [0.0, 0.0]
    differences = np.array(points[-1].score_per_task) - np.array(points[0].score_per_task)
    low, high = stats.t.interval(0.95, TASKS - 1, differences.mean(), stats.sem(differences))
    assert found[-1].gap_to_largest == pytest.approx(-12.1)
    assert found[-1].gap_ci95 == pytest.approx((high - low) / 2)
    assert found[-1].gap_ci95 is not None and found[-1].gap_ci95 < 0.3  # unpaired: 2.5


def test_repeats_are_one_cell_and_pair_with_their_own_tasks() -> None:
    points = [*curve(RISING), *curve({time_s: score + 3 for time_s, score in RISING.items()}, repeat=1)]
    cells = make_cells(points)
    assert [len(cell.points) for cell in cells] == [2, 2, 2, 2]
    assert cells[0].score == pytest.approx(73.6)
    gap = compare(cells[-1], cells[0])
    assert gap is not None and gap.mean == pytest.approx(-12.1)
    assert len(cells[0].scores) == 2 * TASKS


def test_a_point_without_common_tasks_has_no_gap() -> None:
    one, other = make_cells([make_point(60, 70), make_point(30, 70, repeat=1)])
    assert compare(one, other) is None


def test_points_of_other_tasks_have_no_gap() -> None:
    points = [make_point(60, 70, tasks="a"), make_point(30, 60, tasks="a"), make_point(20, 50, tasks="b")]
    largest, same, other = make_cells(points)
    assert compare(same, largest) is not None and compare(other, largest) is None
    assert [point.gap_to_largest is None for point in with_gaps(points)] == [False, False, True]


def test_the_smallest_of_equal_ones_is_that_with_the_smallest_limits() -> None:
    fast, small = make_point(60, 70, 4 * GB, seconds={"total": 20.0}), make_point(60, 70, 2 * GB)
    found = choose(make_cells([make_point(240, 70.2), fast, small]))
    assert found is not None and found.cell.limits.memory_budget_bytes == 2 * GB
    one = make_point(60, 70, 2 * GB, submission="other", seconds={"total": 20.0})
    found = choose(make_cells([small, one]))
    assert found is not None and found.cell.submission == "other"


def test_of_smaller_budgets_only_those_are_told_of_that_fit() -> None:
    found = choose(make_cells([make_point(60, 70), misfit(30, "late")]))
    assert found is not None and found.why == "the best score of the grid, and no smaller one fits"
    found = choose(make_cells([make_point(60, 70), make_point(30, 60)]))
    assert found is not None and found.why.endswith("; smaller budgets lose more than 0.5 points")


def test_smaller_budgets_with_other_tasks_are_not_said_to_be_worse() -> None:
    found = choose(make_cells([make_point(60, 70), make_point(30, 60, tasks="others")]))
    assert found is not None and found.why.endswith(
        "; smaller budgets had other tasks, so they cannot be compared"
    )


def test_the_largest_is_the_one_with_the_most_time_that_fits() -> None:
    cells = make_cells([misfit(600, "late"), make_point(240, 70, 2 * GB), make_point(240, 69, 4 * GB)])
    largest = largest_of(cells, "autometa")
    assert largest is not None and largest.limits.memory_budget_bytes == 4 * GB
    assert largest_of(cells, "other") is None


def test_the_front_has_no_point_that_another_beats_in_everything() -> None:
    points = [make_point(60, 70), make_point(120, 69), make_point(240, 75), misfit(600, "late")]
    assert [cell.limits.time_budget_s for cell in pareto(make_cells(points))] == [60, 240]


def test_the_front_compares_only_what_was_measured_of_both() -> None:
    unknown = make_point(60, 70, predict_ms=None, peak_bytes=None, seconds={"total": 50.0})
    assert pareto(make_cells([unknown, make_point(60, 71, 2 * GB, seconds={"total": 40.0})]))[0].score == 71
    assert len(pareto(make_cells([unknown, make_point(60, 71, 2 * GB, seconds={"total": 60.0})]))) == 2


def test_a_budget_of_which_a_repeat_does_not_fit_is_not_the_largest() -> None:
    cells = make_cells([make_point(600, 72), misfit(600, "late", repeat=1), make_point(60, 70)])
    largest = largest_of(cells, "autometa")
    assert largest is not None and largest.limits.time_budget_s == 60
    assert cells[0].reason == "late" and not cells[0].failed


def test_nothing_is_known_of_a_budget_that_failed() -> None:
    failed = misfit(30, "RuntimeError: an error").model_copy(update={"status": "failed"})
    cells = make_cells([make_point(60, 70), failed])
    assert list_misfits(cells) == [] and cells[1].failed


def test_the_knee_lies_above_the_line_between_the_ends() -> None:
    knee = find_knee(make_cells(curve(RISING)))
    assert knee is not None and knee.limits.time_budget_s == 60
    straight = {30.0: 60.0, 60.0: 62.0, 120.0: 64.0}
    assert find_knee(make_cells(curve(straight))) is None
    assert find_knee(make_cells(curve({30.0: 60.0, 60.0: 62.0}))) is None
    assert find_knee([]) is None


def test_the_smallest_budget_for_a_target() -> None:
    cells = make_cells([*curve(RISING), *curve({60.0: 70.5}, 2 * GB)])
    assert target_of("60", cells) == 60
    assert target_of("95%-of-best", cells) == pytest.approx(0.95 * 72.1)
    cell = smallest_for(cells, 70)
    assert cell is not None
    assert (cell.limits.time_budget_s, cell.limits.memory_budget_bytes) == (60, 2 * GB)
    assert smallest_for(cells, 90) is None
    assert target_of("95%-of-best", make_cells([misfit(60, "late")])) is None


def test_a_share_of_a_best_score_below_chance_is_that_score() -> None:
    cells = make_cells(curve({30.0: -4.0, 60.0: -3.0}))
    assert target_of("95%-of-best", cells) == -3.0
    cell = smallest_for(cells, -3.0)
    assert cell is not None and cell.limits.time_budget_s == 60


def test_gains_per_doubling_and_where_more_is_not_better() -> None:
    steps = list_steps(make_cells(curve(RISING)))
    assert [step.end.limits.time_budget_s for step in steps] == [60, 240, 600]
    assert [step.doublings for step in steps] == pytest.approx([1, 2, math.log2(2.5)])
    assert steps[1].per_doubling.mean == pytest.approx(1.0)
    assert steps[1].per_doubling.ci95 == pytest.approx((steps[1].gain.ci95 or 0) / 2)
    assert [step.is_useless for step in steps] == [False, False, True]
    assert str(steps[2]).startswith(
        "More is not better here: 10m instead of 4m, 4GB, 2 threads gains between"
    )


def test_a_wide_interval_does_not_say_that_more_is_no_better() -> None:
    one = make_point(60, 70)
    scores = [score + 10 * (-1) ** place for place, score in enumerate(one.score_per_task)]
    steps = list_steps(make_cells([make_point(240, 70, score_per_task=scores), one]))
    assert not steps[0].is_useless


def test_budgets_that_do_not_fit_name_the_nearest_that_does() -> None:
    cells = make_cells([make_point(600, 72), make_point(60, 70), misfit(30, "took 33.0 s, 3.0 s too long")])
    (found,) = list_misfits(cells)
    assert found.cell.reason == "took 33.0 s, 3.0 s too long"
    assert found.nearest is not None and found.nearest.limits.time_budget_s == 60
    (alone,) = list_misfits(make_cells([misfit(30, "late")]))
    assert alone.nearest is None


def test_what_is_recommended_can_be_used_from_any_folder() -> None:
    found = recommend(make_cells([make_point(60, 70, submission="mine")]), Path("photos"), TuneOptions(), 2)
    assert found is not None
    assert (found.options["dataset"], found.options["submission"]) == (
        str(Path("photos").absolute()), str(Path("mine").absolute()),
    )  # fmt: skip
