"""A whole grid with a fake in the place of runs: files, resuming, inference, the check, and what is recommended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from grid_cases import GB, FakeRunner, make_point, tune

from autometa.core.errors import ConfigError
from autometa.core.options import RunOptions
from autometa.core.settings import load_yaml
from autometa.tuning import tune as tune_module
from autometa.tuning.budget_file import Budget, tell
from autometa.tuning.elsewhere import most_threads, predict_elsewhere
from autometa.tuning.grid import Place, list_places, make_plan
from autometa.tuning.options import TuneOptions, visible_devices
from autometa.tuning.page import render_page
from autometa.tuning.point import Limits, Point
from autometa.tuning.profiles import REFERENCE
from autometa.tuning.recommend import choose
from autometa.tuning.store import RECOMMENDED_FILE, Identity, Store
from autometa.tuning.table import table_rows
from autometa.tuning.tune import describe_plan


def test_a_grid_runs_once_a_point_and_checks_what_it_recommends(tmp_path: Path) -> None:
    runner = FakeRunner()
    budget = tune(tmp_path / "out", runner, seed=5, ways="2-5")
    names = [name for name, _ in runner.ran]
    assert names == [f"autometa-{time}-4GB-2t-r0" for time in ("4m", "1m", "30s", "1m")]
    assert [shares for _, shares in runner.ran] == [True, True, True, False]
    found = budget.recommendation
    assert found is not None and found.limits == Limits(
        time_budget_s=60, memory_budget_bytes=4 * GB, threads=2
    )
    assert found.check is not None and found.check.kept
    assert found.check.promised_score == pytest.approx(71.8) and found.check.seconds == pytest.approx(54)
    assert budget.largest is not None and budget.largest.time_budget_s == 240
    assert budget.points[1].gap_to_largest == pytest.approx(-0.2)
    assert "total" not in budget.points[0].predicted_s and "total" in budget.points[1].predicted_s
    assert not (tmp_path / "out" / "shared").exists()


def test_what_is_recommended_is_a_config_of_a_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    limits = {"infer_limit": "30ms", "max_model_size": "50MB"}
    budget = tune(out, FakeRunner(), seed=5, ways="2-5", image_size="64", **limits)
    options = load_yaml(out / "recommended.yaml", RunOptions)
    assert (options.time_budget, options.memory_budget, options.seed) == (60.0, 4 * GB, 5)
    assert (options.ways, options.image_size, options.dataset) == ((2, 5), 64, tmp_path / "photos")
    assert (options.infer_limit, options.adapt_limit, options.max_model_size) == (0.03, None, 50_000_000)
    assert budget.recommendation is not None
    assert "--time-budget 1m --memory-budget 4GB --ways 2-5" in budget.recommendation.command


@pytest.mark.medium
def test_fewer_processors_are_part_of_the_command(tmp_path: Path) -> None:
    budget = tune(tmp_path / "out", FakeRunner(), threads="1", device="cpu")
    assert budget.recommendation is not None
    prefix = f"CUDA_VISIBLE_DEVICES='' taskset -c {min(os.sched_getaffinity(0))} autometa run "
    assert budget.recommendation.command.startswith(prefix)
    written = (tmp_path / "out" / "recommended.yaml").read_text("utf-8")
    assert f"\n# As in the grid: {prefix}--config recommended.yaml\n" in written
    tune(tmp_path / "all", FakeRunner())
    assert "# As in" not in (tmp_path / "all" / "recommended.yaml").read_text("utf-8")


def test_processors_are_those_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {9, 4, 6})
    budget = tune(tmp_path / "out", FakeRunner(), threads="1")
    assert budget.recommendation is not None and "taskset -c 4 autometa" in budget.recommendation.command


def test_a_device_is_one_of_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [visible_devices(name) for name in ("cpu", "cuda", "cuda:1")] == ["", "0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7")
    assert [visible_devices(name) for name in ("cpu", "cuda", "cuda:1")] == ["", "5", "7"]
    with pytest.raises(ConfigError, match="--device cuda:2: CUDA_VISIBLE_DEVICES=5, 7 leaves 2 GPUs; name"):
        visible_devices("cuda:2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="leaves 0 GPUs"):
        visible_devices("cuda")


@pytest.mark.medium
def test_sentences_and_marks_name_the_submission_that_they_are_of(tmp_path: Path) -> None:
    class Two(FakeRunner):
        def run(self, place: Place, folder: Path, *, shares: bool = True) -> Point:
            point = super().run(place, folder, shares=shares)
            if place.submission == "autometa":
                return point.model_copy(update={"score": (point.score or 0) - 9})
            own = {"status": "does_not_fit", "reason": "late"}
            return point.model_copy(update=own if place.time_budget_s == 30 else {})

    budget = tune(tmp_path / "out", Two(), submission="autometa,random", target_score="70")
    assert budget.recommendation is not None and budget.recommendation.submission == "random"
    assert budget.smallest_for_target is None
    told = tell(budget)
    assert "Target 70.0 % (70): no budget of autometa reaches it." in told
    assert any(line.startswith("Does not fit: 30s, 4GB, 2 threads (random): late") for line in told)
    assert sum(line.startswith("More is not better") and line.endswith("(random).") for line in told) == 1
    page = render_page(budget)
    assert page.count('<tr class="chosen">') == 1 and "random, 1m" in page


def test_it_is_told_that_images_were_decoded_once(tmp_path: Path) -> None:
    budget = tune(tmp_path / "out", FakeRunner(seconds={"total": 20.0, "decode": 3.0}))
    (line,) = [line for line in tell(budget) if line.startswith("Images were decoded once")]
    assert "the first point took 3.0 s" in line and line in render_page(budget)


def test_a_killed_grid_goes_on_and_loses_one_point(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        tune(out, FakeRunner(ends="autometa-30s-4GB-2t-r0"))
    partial = Budget.model_validate_json((out / "budget.json").read_text("utf-8"))
    assert [point.time_budget_s for point in partial.points] == [240, 60]
    assert "The grid is not finished yet" in (out / "budget.html").read_text("utf-8")
    runner = FakeRunner()
    budget = tune(out, runner, output=out, resume=True)
    assert [name for name, _ in runner.ran] == ["autometa-30s-4GB-2t-r0", "autometa-1m-4GB-2t-r0"]
    assert len(budget.points) == 3


@pytest.mark.medium
def test_a_grid_goes_on_only_with_the_same_tasks_and_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tune(out, FakeRunner())
    with pytest.raises(ConfigError, match="has seed 93, not 5; give the same"):
        tune(out, FakeRunner(), output=out, resume=True, seed=5)
    with pytest.raises(ConfigError, match=r"has infer-limit None, not 0\.03; give"):
        tune(out, FakeRunner(), output=out, resume=True, infer_limit="30ms")
    with pytest.raises(ConfigError, match="has sandbox auto, not none; give"):
        tune(out, FakeRunner(), output=out, resume=True, sandbox="none")
    (tmp_path / "else").mkdir()
    identity = Identity.of(tmp_path / "else" / "photos", TuneOptions())
    with pytest.raises(ConfigError, match=r"has dataset .*photos, not .*else/photos; give"):
        Store(out).claim(identity, resume=True, overwrite=False)
    with pytest.raises(ConfigError, match="exists and is not empty; add --resume or --overwrite"):
        tune(out, FakeRunner())
    runner = FakeRunner()
    tune(out, runner, overwrite=True, seed=5)
    assert len(runner.ran) == 4
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(ConfigError, match="is not the output of a grid"):
        tune(tmp_path / "mine", FakeRunner(), overwrite=True)


@pytest.mark.medium
def test_less_memory_is_inferred_where_the_run_would_be_the_same(tmp_path: Path) -> None:
    runner = FakeRunner()
    budget = tune(tmp_path / "out", runner, memory_budget="4GB,8GB")
    assert [name for name, shares in runner.ran if shares] == [
        f"autometa-{time}-8GB-2t-r0" for time in ("4m", "1m", "30s")
    ]
    inferred = [point for point in budget.points if point.status == "inferred"]
    assert [point.memory_budget_bytes for point in inferred] == [4 * GB] * 3
    assert inferred[0].score == 72.0 and "held 1.92 GB at most" in inferred[0].reason
    every = FakeRunner()
    tune(tmp_path / "every", every, memory_budget="4GB,8GB", skip_same=False)
    assert len([name for name, shares in every.ran if shares]) == 6


@pytest.mark.medium
def test_larger_images_may_be_smaller_with_less_memory_unless_their_size_is_given(tmp_path: Path) -> None:
    for px, size, runs in ((192, "auto", 6), (128, "auto", 3), (192, "192", 3)):
        runner = FakeRunner()
        runner.px = px
        tune(tmp_path / f"{px}-{size}", runner, memory_budget="4GB,8GB", image_size=size)
        assert len([name for name, shares in runner.ran if shares]) == runs


@pytest.mark.medium
@pytest.mark.parametrize(
    ("values", "memory"),
    [
        ({"peak_bytes": 3 * GB}, "4GB,8GB"),  # close to the smaller budget
        ({}, "1.8GB,8GB"),  # no process stands by for meta-test with so little
        ({"submission": "prototypical"}, "4GB,8GB"),
    ],
)
def test_a_point_that_might_be_another_run_runs(tmp_path: Path, values: dict[str, Any], memory: str) -> None:
    runner = FakeRunner(**{name: value for name, value in values.items() if name != "submission"})
    tune(tmp_path / "out", runner, memory_budget=memory, submission=values.get("submission", "autometa"))
    assert len([name for name, shares in runner.ran if shares]) == 6


@pytest.mark.medium
def test_a_run_that_left_something_out_for_memory_tells_nothing_of_others(tmp_path: Path) -> None:
    class Short(FakeRunner):
        def run(self, place: Place, folder: Path, *, shares: bool = True) -> Point:
            point = super().run(place, folder, shares=shares)
            (folder / "ingestion" / "submission.log").write_text(
                "left out: net: would take 3.1 of 2.0 GB left\n"
            )
            return point

    runner = Short()
    tune(tmp_path / "out", runner, memory_budget="4GB,8GB")
    assert len([name for name, shares in runner.ran if shares]) == 6


def test_nothing_is_recommended_where_nothing_fits(tmp_path: Path) -> None:
    budget = tune(tmp_path / "out", FakeRunner(misfits=(30, 60, 240)))
    assert budget.recommendation is None and budget.largest is None
    assert [each.nearest for each in budget.do_not_fit] == [None] * 3
    assert "Nothing fits" in render_page(budget)


def test_what_is_too_long_for_all_is_left_out_while_the_grid_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_module, "stopwatch", lambda: lambda: 600.0)
    runner = FakeRunner()
    budget = tune(tmp_path / "out", runner, within="11m")
    assert [name for name, shares in runner.ran if shares] == ["autometa-4m-4GB-2t-r0"]
    assert [left.place.time_budget_s for left in budget.left_out] == [60, 30]
    assert "are left of --within" in budget.left_out[0].reason


def test_a_target_is_what_is_recommended(tmp_path: Path) -> None:
    budget = tune(tmp_path / "out", FakeRunner(), target_score="60")
    assert budget.recommendation is not None and budget.recommendation.limits.time_budget_s == 30
    assert budget.smallest_for_target == budget.recommendation.limits
    missed = choose(budget.cells, "90")
    assert missed is not None and missed.why == "the best one; no budget of the grid reaches 90.0 % (90)"


def test_the_table_has_a_row_for_each_budget(tmp_path: Path) -> None:
    budget = tune(tmp_path / "out", FakeRunner(misfits=(30,)))
    headings, rows = table_rows(budget)
    assert headings == [
        "time", "memory", "score, %", "to the largest", "took", "peak", "answer, p95", "learner", "",
    ]  # fmt: skip
    assert [row[0] for row in rows] == ["4m", "1m", "30s"]
    assert rows[0][3] == "largest" and rows[1][3].startswith("−0.2 ±")
    assert rows[1][-1] == "recommended"
    assert rows[2][-1] == "does not fit: took 33.0 s, 3.0 s too long"


def test_the_page_escapes_names_and_shows_predicted_curves(tmp_path: Path) -> None:
    budget = tune(tmp_path / "out", FakeRunner(), target_score="95%-of-best")
    other = REFERENCE.model_copy(update={"name": "<b>Pi</b>", "notes": ("a note",)})
    budget = predict_elsewhere(budget, [other], REFERENCE)
    page = render_page(budget.model_copy(update={"dataset": "<script>"}))
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "&lt;b&gt;Pi&lt;/b&gt;, predicted" in page and "a note" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count('class="dot"') == 6
    lines = tell(budget)
    first = next(place for place, line in enumerate(lines) if line.startswith("prediction for <b>Pi</b>"))
    assert [line.split()[:2] for line in lines[first + 1 : first + 4]] == [
        ["30s", "60.0"],
        ["1m", "71.8"],
        ["4m", "72.0"],
    ]
    assert all("% predicted, what" in line for line in lines[first + 1 : first + 4])
    assert Budget.model_validate_json(budget.model_dump_json()) == budget


@pytest.mark.medium
def test_other_machines_are_predicted_from_the_points_with_the_most_threads(tmp_path: Path) -> None:
    budget = tune(tmp_path / "out", FakeRunner(), threads="1,2", submission="autometa,random")
    (found,) = predict_elsewhere(budget, [REFERENCE], REFERENCE).predicted
    assert [point.score for point in found.points] == pytest.approx([60.0, 71.8, 72.0])
    assert not any("threads" in note for note in found.notes)
    nothing = tune(tmp_path / "none", FakeRunner(misfits=(30, 60, 240)))
    assert most_threads(budget.points) == 2 and most_threads(nothing.points) is None
    alone = render_page(budget.model_copy(update={"points": (), "gains": (), "recommendation": None}))
    assert "<svg" not in alone


def test_a_page_of_one_point_without_any_error(tmp_path: Path) -> None:
    budget = tune(tmp_path / "out", FakeRunner(), time_budget="60s")
    perfect = make_point(60, 100.0, score_per_task=[100.0] * 5)
    assert "<svg" in render_page(budget.model_copy(update={"points": (perfect,)}))


def test_the_plan_says_who_shares(tmp_path: Path) -> None:
    options = TuneOptions.model_validate({"time_budget": "60s,10m", "submission": "autometa,random"})
    lines = describe_plan(make_plan(list_places(options, 2)))
    assert lines[1] == "1m, 2 threads: about 36 s"
    assert lines[2].endswith("about 10 min, in full: only runs of autometa share work")
    assert lines[-1] == "4 points, about 32 min together"


def test_a_grid_does_not_go_on_with_other_images(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tune(out, FakeRunner())
    (tmp_path / "photos" / "1.png").write_bytes(b"new")
    with pytest.raises(ConfigError, match=r"the files of .*photos are others than those that the grid in"):
        tune(out, FakeRunner(), output=out, resume=True)


def test_points_of_a_submission_that_was_changed_run_again(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "model.py").write_text("first = 1")
    asked = {"submission": f"random,{mine}", "output": tmp_path / "out"}
    tune(tmp_path / "out", FakeRunner(), **asked)
    (mine / "model.py").write_text("second = 2")
    runner = FakeRunner()
    tune(tmp_path / "out", runner, resume=True, **asked)
    again = [name for name, shares in runner.ran if shares]
    assert len(again) == 3 and all("mine" in name for name in again)


def test_what_was_recommended_before_goes_where_nothing_is_now(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tune(out, FakeRunner(), time_budget="30s")
    assert (out / RECOMMENDED_FILE).exists()
    late = FakeRunner(misfits=(30, 60))
    for file in (out / "points").iterdir():
        file.unlink()
    assert tune(out, late, time_budget="30s,60s", output=out, resume=True).recommendation is None
    assert not (out / RECOMMENDED_FILE).exists() and not (out / "recommended").exists()


def test_an_output_within_the_submission_does_not_change_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "output").mkdir(parents=True)
    (mine / "model.py").write_text("first = 1")
    asked = {"submission": str(mine), "output": mine / "output" / "grid", "time_budget": "30s,60s"}
    tune(mine / "output" / "grid", FakeRunner(), **asked)
    runner = FakeRunner()
    tune(mine / "output" / "grid", runner, resume=True, **asked)
    assert not [name for name, shares in runner.ran if shares]
