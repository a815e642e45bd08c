"""What a grid promises and what the run that checks it makes of that; and points that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from grid_cases import FakeRunner, tune

from autometa.tuning.budget_file import tell
from autometa.tuning.grid import Place
from autometa.tuning.point import Point


class Alone(FakeRunner):
    """The run that checks is another one: these are its values."""

    def __init__(self, **alone: Any) -> None:
        super().__init__()
        self.alone = alone

    def run(self, place: Place, folder: Path, *, shares: bool = True) -> Point:
        point = super().run(place, folder, shares=shares)
        return point if shares else point.model_copy(update=self.alone)


@pytest.mark.parametrize(
    ("alone", "told"),
    [
        ({"status": "does_not_fit", "reason": "took 63.0 s, 3.0 s too long"}, "took 63.0 s, 3.0 s too long"),
        ({"status": "failed", "reason": "why"}, "why"),
        ({"score": 60.0}, "60.0 % instead of 71.8 ± 2.5 %"),
    ],
)
def test_a_run_alone_that_does_not_fit_or_has_a_worse_score_keeps_no_promise(
    tmp_path: Path, alone: dict[str, Any], told: str
) -> None:
    budget = tune(tmp_path / "out", Alone(**alone))
    assert budget.recommendation is not None and (check := budget.recommendation.check) is not None
    assert not check.kept and check.tell()[-1] == f"run alone it did not keep this: {told}"


@pytest.mark.medium
def test_the_promise_is_that_of_the_repeat_that_runs_again(tmp_path: Path) -> None:
    class Repeats(FakeRunner):
        def run(self, place: Place, folder: Path, *, shares: bool = True) -> Point:
            point = super().run(place, folder, shares=shares)
            return point.model_copy(update={"score": (point.score or 0.0) - 20 * point.repeat})

    budget = tune(tmp_path / "out", Repeats(), repeats=2)
    assert budget.recommendation is not None and (check := budget.recommendation.check) is not None
    assert (check.promised_score, check.promised_ci95, check.kept) == (71.8, 2.5, True)
    assert check.tell() == ["run alone: 71.8 %, 54.0 s"]


def test_points_that_failed_are_tried_again(tmp_path: Path) -> None:
    class Fails(FakeRunner):
        def run(self, place: Place, folder: Path, *, shares: bool = True) -> Point:
            point = super().run(place, folder, shares=shares)
            own = {"status": "failed", "reason": "RuntimeError: why", "score": None}
            return point.model_copy(update=own if place.time_budget_s == 30 else {})

    out = tmp_path / "out"
    budget = tune(out, Fails())
    assert budget.do_not_fit == () and any(line.startswith("Failed: 30s") for line in tell(budget))
    runner = FakeRunner()
    assert [point.status for point in tune(out, runner, output=out, resume=True).points] == ["ok"] * 3
    assert [name for name, shares in runner.ran if shares] == ["autometa-30s-4GB-2t-r0"]
