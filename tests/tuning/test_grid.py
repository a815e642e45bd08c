"""Which points run, in which order, and what that is predicted to take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from autometa.core.errors import ConfigError
from autometa.core.settings import validate_settings
from autometa.core.units import show_value
from autometa.tuning.grid import list_places, make_plan, shares_work
from autometa.tuning.options import TuneOptions


def options(**values: Any) -> TuneOptions:
    return TuneOptions.model_validate(values)


def test_lists_are_read_as_people_write_them_and_written_again() -> None:
    found = options(time_budget="30s, 1m,60s", memory_budget="1.5GB,2GB", threads="1,2", infer_limit="50ms")
    assert found.time_budget == (30.0, 60.0)
    assert found.memory_budget == (1_500_000_000, 2_000_000_000)
    assert (found.threads, found.infer_limit) == ((1, 2), 0.05)
    written = {
        name: show_value(field, getattr(found, name))
        for name, field in TuneOptions.model_fields.items()
        if getattr(found, name) is not None
    }
    assert written["time_budget"] == "30s,1m" and written["infer_limit"] == "50ms"
    assert options(**written) == found


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"time_budget": "5s,1m"}, "5s is too little; use 20s or more"),
        ({"memory_budget": "50MB"}, "50MB is too little; use 100MB or more"),
        ({"threads": "0"}, "`0` is no number of threads"),
        ({"infer_limit": "soon"}, "`soon` is not a duration; write 30ms, 90s, 10m or 2h"),
        ({"target_score": "much"}, "String should match pattern"),
        ({"device": "gpu"}, "String should match pattern"),
        ({"resume": True}, "set output to the folder of the grid to go on with"),
        ({"output": "x", "resume": True, "overwrite": True}, "give only one of them"),
        ({"tasks_per_dataset": 0}, "greater than or equal to 1"),
        ({"ways": "1-5"}, "starts at 1; use 2 or more"),
    ],
)
def test_wrong_options_say_what_is_right(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match="options: ") as caught:
        validate_settings(TuneOptions, values, "options")
    assert told in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValidationError):
        options(**values)


def test_the_largest_comes_first_and_each_point_once() -> None:
    places = list_places(
        options(time_budget="30s,3m,60s", memory_budget="2GB,4GB", threads="1,2,8", repeats=2), 2
    )
    assert len(places) == 3 * 2 * 2 * 2  # eight threads are two, on two processors
    first = places[0]
    assert (first.time_budget_s, first.memory_budget_bytes, first.threads) == (180, 4_000_000_000, 2)
    assert [place.repeat for place in places] == [0] * 12 + [1] * 12
    assert len({place.name for place in places}) == len(places)
    assert first.name == "autometa-3m-4GB-2t-r0"


def test_submissions_come_in_the_order_in_which_they_are_named() -> None:
    places = list_places(options(time_budget="30s", submission="random,autometa"), 2)
    assert [place.submission for place in places] == ["random", "autometa"]


def test_bundles_of_the_same_name_have_files_of_their_own() -> None:
    names = [place.name for place in list_places(options(time_budget="30s", submission="a/mine,b/mine"), 2)]
    assert len(set(names)) == 2 and all(name.startswith("mine-") and "/" not in name for name in names)


def test_only_points_of_autometa_are_cheap_after_the_first() -> None:
    plan = make_plan(list_places(options(time_budget="60s,10m", submission="autometa,random"), 2))
    assert list(plan.seconds) == [600, 36, 600, 60]
    assert plan.check_s == 600 and plan.total_s == 600 + 36 + 600 + 60 + 600


def test_a_folder_of_the_name_of_the_baseline_shares_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shares_work("autometa") and not shares_work("random") and not shares_work("./autometa")
    (tmp_path / "autometa").mkdir()
    (tmp_path / "autometa" / "model.py").touch()
    assert not shares_work("autometa")
    assert make_plan(list_places(options(time_budget="60s,10m"), 2)).seconds == (600, 60)


def test_what_does_not_fit_in_the_time_for_all_is_left_out_with_a_reason() -> None:
    places = list_places(options(time_budget="30s,60s,10m,1h", repeats=2), 2)
    plan = make_plan(places, within_s=1800)
    assert [place.time_budget_s for place in plan.places] == [600, 60, 30, 600, 60, 30]
    assert plan.total_s <= 1800
    assert [(each.place.repeat, each.place.time_budget_s) for each in plan.dropped] == [
        (1, 3600),
        (0, 3600),
    ]
    assert "--within allows 30 min" in plan.dropped[0].reason
    assert make_plan(places, within_s=5).places == ()
