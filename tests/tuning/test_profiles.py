"""Profiles of machines, and what is predicted with them from points that were measured elsewhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ByteSize

from autometa.core.errors import ConfigError
from autometa.tuning.measured import measure_profile
from autometa.tuning.point import Point
from autometa.tuning.predicted import (
    STAGES,
    VIEW,
    Prediction,
    describe_prediction,
    predict_curve,
    scale_seconds,
    stage_mix,
)
from autometa.tuning.profiles import KINDS, REFERENCE, STATED, Profile, Speeds, read_profile

GB = 10**9
SECONDS = {"start": 0.1, "decode": 0.05, "embed": 0.5, "evidence": 0.15, "meta_test": 0.2}
"""Shares of a budget that stages of these points take; all of it."""


def speeds(every: float = 1.0, **of_kind: float) -> Speeds:
    return Speeds(**(dict.fromkeys(KINDS, every) | of_kind))


def machine(name: str = "there", *, memory: int = 8 * GB, **given: Any) -> Profile:
    given = {"measured": speeds()} | given
    return Profile(name=name, cores=2, memory=ByteSize(memory), **given)


def point(budget_s: float, score: float, **given: Any) -> Point:
    seconds = {stage: share * budget_s for stage, share in SECONDS.items()} | {"total": budget_s}
    all_given: dict[str, Any] = {"threads": 2, "seconds": seconds, "ci95": 1.0, "peak_bytes": GB} | given
    return Point(time_budget_s=budget_s, score=score, **all_given)


HERE = machine("here")
POINTS = [point(20, 60.0), point(60, 70.0), point(180, 76.0)]


def scores(prediction: Prediction) -> list[float | None]:
    return [one.score for one in prediction.points]


def test_the_same_machine_gives_the_measured_points() -> None:
    found = predict_curve(POINTS, machine(), HERE)
    assert scores(found) == pytest.approx([60.0, 70.0, 76.0])
    assert [one.worth_s for one in found.points] == pytest.approx([20, 60, 180])
    assert [one.ci95 for one in found.points] == pytest.approx([1.0, 1.0, 1.0])
    assert found.faster == speeds()


def test_on_a_machine_half_as_fast_a_budget_buys_what_half_of_it_buys_here() -> None:
    found = predict_curve(POINTS, machine(measured=speeds(0.5)), HERE, [40, 120, 360])
    assert scores(found) == pytest.approx([60.0, 70.0, 76.0])
    assert [one.worth_s for one in found.points] == pytest.approx([20, 60, 180])


def test_each_stage_is_scaled_by_the_kind_of_its_work() -> None:
    one = point(100, 60.0)  # embed 50 s; half of meta-test's 20 s is embedding, too
    assert scale_seconds(one, speeds(embedding=10.0)) == pytest.approx(100 - 0.9 * (50 + 10))
    assert scale_seconds(one, speeds(start=0.5)) == pytest.approx(110)
    assert scale_seconds(one, speeds(heads=0.5)) == pytest.approx(100 + 15 + 10)
    assert scale_seconds(one, speeds(disk=5.0)) == pytest.approx(100 - 0.8 * 5)


def test_time_of_no_stage_is_work_in_python_and_the_reserve_stays() -> None:
    one = point(100, 60.0, seconds={"embed": 50.0, "total": 80.0})
    assert scale_seconds(one, speeds(heads=3.0)) == pytest.approx(50 + 30 / 3 + 20)


def test_a_stage_that_is_told_by_its_parts_counts_once() -> None:
    inner = {"decode": 10.0, "meta_train": 60.0, "tiny@128": 40.0, "evidence": 20.0, "meta_test": 30.0}
    one = point(100, 60.0, seconds=inner | {"total": 100.0})
    assert scale_seconds(one, speeds()) == pytest.approx(100)
    longer = inner | {"meta_train": 65.0, "tiny@128": 35.0, "total": 105.0}  # 10 s to start the process
    twice = scale_seconds(point(105, 60.0, seconds=longer), speeds(start=0.5))
    assert twice == pytest.approx(105 + 10)
    outer = {"decode": 10.0, "meta_train": 60.0, "meta_test": 30.0, "total": 100.0}
    assert scale_seconds(point(100, 60.0, seconds=outer), speeds(2.0)) == pytest.approx(50)


def test_mixes_add_up_and_purchases_count_as_views() -> None:
    for mix in (*STAGES.values(), VIEW):
        assert sum(mix.values()) == pytest.approx(1)
    assert stage_mix("tf_efficientnet_lite0@128 in 2 orientations") is VIEW
    assert stage_mix("meta_test 3") is STAGES["meta_test"]


def test_between_measured_points_the_interval_is_wider() -> None:
    middle = math.sqrt(20 * 60)
    (found,) = predict_curve(POINTS, machine(), HERE, [middle]).points
    assert found.from_s == pytest.approx((20, 60))
    assert found.score == pytest.approx(65.0)
    assert found.ci95 == pytest.approx(math.hypot(1.0, 5.0))
    assert found.worth_s == pytest.approx(middle)


def test_nothing_is_said_beyond_what_was_measured() -> None:
    found = predict_curve(POINTS, machine(measured=speeds(0.5)), HERE, [20, 39.9, 361, 1000]).points
    assert [one.score is None for one in found] == [True, False, False, True]
    assert "least of it takes 40s" in found[0].reason
    assert "most of it takes 6m" in found[3].reason


def test_points_that_do_not_fit_are_named_and_not_used() -> None:
    large = point(180, 76.0, peak_bytes=10 * GB)
    found = predict_curve([*POINTS[:2], large], machine(), HERE)
    assert scores(found) == [60.0, 70.0, None]
    assert any("does not fit: 3m took 10GB of memory, there has 8GB" in note for note in found.notes)
    none = predict_curve(POINTS, machine(memory=GB // 2), HERE)
    assert {one.reason for one in none.points} == {"no measured point fits on this machine"}


def test_a_gpu_costs_its_start_and_has_memory_of_its_own() -> None:
    there = machine(gpu_memory=2 * GB, gpu_start_s=5.0, measured=speeds(embedding=1e9))
    (found,) = predict_curve([point(100, 60.0)], there, HERE, [100 - 60 + 5]).points
    assert found.score == pytest.approx(60.0)
    large = predict_curve([point(100, 60.0, gpu_peak_bytes=3 * GB)], there, HERE)
    assert any("3GB of GPU memory" in note for note in large.notes)


def test_of_several_limits_the_largest_that_fit_are_used() -> None:
    one = [point(20, 10.0, threads=1), point(20, 50.0, memory_budget_bytes=2 * GB)]
    found = predict_curve([*one, point(20, 60.0, memory_budget_bytes=4 * GB)], machine(), HERE)
    assert scores(found) == [60.0]
    assert any("points with 2 are used" in note for note in found.notes)
    assert any("points with 4GB are used" in note for note in found.notes)


def test_budgets_of_gpu_memory_are_no_repeats() -> None:
    points = [point(20, 20.0, gpu_memory_budget_bytes=GB), point(20, 60.0, gpu_memory_budget_bytes=8 * GB)]
    found = predict_curve(points, machine(), HERE)
    assert scores(found) == [60.0]
    assert any("GPU memory budgets, the points with 8GB are used" in note for note in found.notes)


def test_repeats_are_one_point_and_failures_none() -> None:
    failed = Point(time_budget_s=20, status="failed", reason="out of time")
    found = predict_curve([point(20, 60.0), point(20, 64.0, repeat=1, ci95=2.0), failed], machine(), HERE)
    assert scores(found) == [62.0] and found.points[0].ci95 == 2.0
    unknown = predict_curve([point(20, 60.0, ci95=None)], machine(), HERE)
    assert unknown.points[0].ci95 is None


@pytest.mark.parametrize("name", ["t4", "m60x4", "pi5", "laptop"])
def test_stated_profiles_say_where_their_figures_are_from(name: str) -> None:
    profile = read_profile(name)
    assert profile.is_stated and profile.guessed and bool(profile.sources) == (name != "laptop")
    assert not set(profile.sources) & set(profile.guessed)
    assert any(profile.guessed[0] in note for note in predict_curve(POINTS, profile, REFERENCE).notes)
    assert profile.faster_than(REFERENCE).embedding == pytest.approx(STATED[name].relative.embedding)


def test_a_measured_profile_is_carried_as_a_file(tmp_path: Path) -> None:
    mine = machine(gpu_memory=3 * GB, gpu_start_s=1.5, measured=speeds(heads=12.25), notes=("quiet",))
    mine.save(tmp_path / "mine.yaml")
    assert read_profile(str(tmp_path / "mine.yaml")) == mine
    assert not mine.is_stated and mine.speeds.heads == 12.25


@pytest.mark.parametrize(("text", "said"), [
    ("name: x\ncores: 2\nmemory: 4GB\n", "give either `measured` or `relative`"),
    ("name: x\ncores: 2\nmemory: 4GB\nmesured: {}\n", "did you mean `measured`?"),
    ("name: x\ncores: 0\nmemory: 4GB\n", "cores = 0"),
    ("name: x\ncores: 1\nmemory: 4GB\nrelative: {heads: 0, embedding: 1, start: 1, disk: 1}\n", "relative.heads = 0"),
])  # fmt: skip
def test_a_file_that_is_no_profile_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_profile(str(file))
    assert said in str(error.value) and "odd.yaml" in str(error.value)


def test_a_prediction_is_told_in_lines() -> None:
    lines = describe_prediction(predict_curve(POINTS, read_profile("pi5"), REFERENCE, [60, 600]))
    assert lines[0].startswith("prediction for pi5 (a Raspberry Pi 5") and "embedding 0.14" in lines[0]
    assert "outside what was measured" in lines[1] and " ± " in lines[2] and "buy here" in lines[2]
    assert (
        "  a prediction: nothing was run on pi5; its speeds are from published figures and guesses" in lines
    )


def test_an_unknown_profile_is_named_with_those_that_there_are() -> None:
    with pytest.raises(
        ConfigError, match="--profile pi6: is neither a file nor one of t4, m60x4, pi5, laptop"
    ):
        read_profile("pi6")


@pytest.mark.slow
def test_this_machine_can_be_measured(tmp_path: Path) -> None:
    found = measure_profile("mine", seconds=0.1)
    assert found.cores >= 1 and found.memory > GB and found.gpu_memory is None
    assert found.faster_than(found) == speeds()
    assert found.speeds.embedding > 1 and found.speeds.start < 100
