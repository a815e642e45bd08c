"""Settings: units, unknown keys, ranges."""

from __future__ import annotations

from pathlib import Path

import pytest

from autometa.core.errors import ConfigError
from autometa.core.options import RunOptions
from autometa.core.settings import (
    Settings,
    load_yaml,
    parse_duration,
    parse_range,
    validate_settings,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1.5h", 5400),
        (45, 45),
        ("30", 30),
        ("30ms", 0.03),
        (1e-5, 1e-5),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "5 days", "-3s", "1h30"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="90s, 10m or 2h"):
        parse_duration(text)


def test_ranges() -> None:
    assert parse_range("2-20") == parse_range([2, 20]) == (2, 20)
    assert parse_range(5) == (5, 5)
    for bad in ("20-2", "a-b", ""):
        with pytest.raises(ValueError, match=r"range|backwards"):
            parse_range(bad)


def test_yaml_takes_people_s_units(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("time-budget: 10m\nmemory_budget: 4GB\ntest:\n  ways: 5\n")
    settings = load_yaml(file, Settings)
    assert settings.time_budget == 600
    assert settings.memory_budget == 4_000_000_000
    assert settings.test.ways == (5, 5)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("time_bugdet: 1m", "did you mean `time_budget`"),
        ("test:\n  way: 3", "did you mean `ways`"),
        ("colour: red", "known keys"),
        ("time_budget: soon", "soon"),
        ("seed: [", "YAML"),
        ("- a\n- b", "key: value"),
        ("resolutions: [4]", "16 to 1024"),
    ],
)
def test_errors_name_the_file_the_key_and_the_fix(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=named) as caught:
        load_yaml(file, Settings)
    assert "s.yaml" in str(caught.value)


@pytest.mark.parametrize("bad", [{"ways": "1-5"}, {"shots": "0-2"}, {"time_budget": "19s"}, {"seed": -1}])
def test_run_options_have_bounds(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        validate_settings(RunOptions, bad, "options")
