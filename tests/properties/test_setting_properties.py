"""Settings as people write them: any value is taken, or refused in one line that names it; what is shown is taken."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel
from values import JSON_VALUES, MANY_DIGITS, assert_one_line, objects

from autometa.core.errors import ConfigError
from autometa.core.options import RunOptions
from autometa.core.settings import Settings, dump_yaml, load_yaml, validate_settings
from autometa.core.units import parse_duration, parse_range, show_bytes, show_duration, show_range, show_value
from autometa.tuning.options import TuneOptions, parse_size

DURATIONS = st.floats(0, 1e9).map(lambda value: round(value, 9)) | st.integers(0, 10**9).map(float)


@given(DURATIONS)
@example(1234567.5)
@example(100_000_001.0)
@example(1e-9)
@example(0.1234567891)
def test_a_duration_is_taken_as_it_is_shown(seconds: float) -> None:
    assert parse_duration(show_duration(seconds)) == pytest.approx(seconds, rel=1e-12, abs=1e-12)
    assert parse_duration(seconds) == pytest.approx(seconds, abs=1e-12)


@given(st.integers(0, 2**53))
def test_a_size_is_taken_as_it_is_shown(size: int) -> None:
    assert parse_size(show_bytes(size)) == size


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_range_is_taken_as_it_is_shown(one: int, other: int) -> None:
    bounds = (min(one, other), max(one, other))
    assert parse_range(show_range(bounds)) == bounds == parse_range(list(bounds))


WRITTEN = st.from_regex(r"\s*-?\d{0,12}(\.\d{0,3})?\s*(ms|s|m|min|h|KB|GB|GiB|TB|x)?\s*", fullmatch=True)


@given(WRITTEN | JSON_VALUES)
@example("9" * 400)
@example(math.inf)
@example(math.nan)
@example("٣s")
@example("1e5")
@example([None, 2])
@example([math.inf, 2])
@example([2.7, 20])
@example([20, 2])
@example("9" * 5000 + "-2")
@example("9" * 400 + "GB")
def test_any_text_is_a_finite_value_or_a_clear_refusal(value: object) -> None:
    for parse in (parse_duration, parse_size):
        try:
            number = parse(value)
        except ValueError as error:
            assert str(error).strip()
        else:
            assert math.isfinite(number) and number >= 0
    try:
        low, high = parse_range(value)
    except ValueError as error:
        assert str(error).strip()
    else:
        assert isinstance(low, int) and isinstance(high, int) and low <= high


MODELS: tuple[type[BaseModel], ...] = (Settings, RunOptions, TuneOptions)
LISTS = st.lists(WRITTEN | st.integers() | st.floats() | st.none(), max_size=4)


@pytest.mark.medium
@given(st.data(), st.sampled_from(MODELS))
def test_any_values_are_options_or_one_line(data: st.DataObject, model: type[BaseModel]) -> None:
    keys = [*model.model_fields, "unknown", "time-budget", "a\nb", "x" * 3000]
    values = data.draw(objects(*keys, more=WRITTEN | LISTS | JSON_VALUES))
    try:
        options = validate_settings(model, values, "--config run.yaml")
    except ConfigError as error:
        assert_one_line(error)
        return
    shown = {name: show_value(field, getattr(options, name)) for name, field in model.model_fields.items()}
    again = validate_settings(
        model, {name: value for name, value in shown.items() if value is not None}, "again"
    )
    for name in model.model_fields:
        one, other = getattr(options, name), getattr(again, name)
        assert one == other or one == pytest.approx(other, abs=1e-12), (
            f"{name}: {one} is shown as {shown[name]}"
        )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("value", [
    [None, 2], [math.inf, 2], math.inf, "9" * 400, "9" * 400 + "GB", True, None, {"a": 1}, [[1], 2], "x" * 5000,
    "a\0b", "\ud800", ["\ud800"], {1: 2},
])  # fmt: skip
def test_no_value_of_any_option_is_a_traceback(model: type[BaseModel], value: Any) -> None:
    """One value that was found for each kind of parser, for every option in turn."""
    for name in model.model_fields:
        try:
            validate_settings(model, {name: value}, "run.yaml")
        except ConfigError as error:
            assert_one_line(error)


@pytest.mark.medium
@given(st.text(max_size=80) | st.binary(max_size=80))
@example("seed: 2001-99-99")
@example("? [1]\n: 2")
@example("&a [*a]")
@example("seed: !!python/object:os.system x")
@example("seed: !!int x")
@example("seed: !!bool x")
@example("seed: !!timestamp x")
@example("[" * 2000)
@example("a: b: c")
@example("seed: [1\ntest: 2")
@example("\0")
@example(f"seed: {MANY_DIGITS}".replace(MANY_DIGITS, "9" * 5000))
@example("seed: 1\nseed: 2\n1: 3\nnull: 4")
def test_any_yaml_is_settings_or_one_line(content: str | bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        try:
            settings = load_yaml(file, Settings)
        except ConfigError as error:
            assert_one_line(error)
            assert str(error).startswith(str(file))
        else:
            assert isinstance(settings, Settings)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(PLAIN)
@example("\n")
@example([1, "a\nb", {"k\n": 2.5, "n": None, "t": True}])
def test_yaml_on_one_line_is_read_as_it_was(value: Any) -> None:
    text = dump_yaml(value)
    assert "\n" not in text
    assert yaml.safe_load(text) == value
