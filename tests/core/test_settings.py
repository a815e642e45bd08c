"""Settings: units, unknown keys, ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from autometa.core.errors import ConfigError
from autometa.core.options import RunOptions
from autometa.core.settings import Settings, _Loader, load_yaml, validate_settings
from autometa.core.units import parse_duration, parse_range, parse_size
from autometa.papers.recipes import FOLDER, PaperRecipe
from autometa.tuning.profiles import Profile


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


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500MB", 5e8),
        ("1.5 GB", 1.5e9),
        (".5GB", 5e8),
        ("512MiB", 2**29),
        ("4g", 4e9),
        ("12", 12),
        ("12b", 12),
        ("0", 0),
        ("0GB", 0),
        (4e9, 4e9),
        (7, 7),
    ],
)
def test_sizes(text: object, size: float) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "1,5GB",
        "4GB-8GB",
        "2GB and more",
        "2 GB/s",
        "1.5.5GB",
        "0.5",
        "1.7",
        1.7,
        "0.0001kB",
        "1e9",
        "-1GB",
        "",
    ],
)
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="is no size; write 500MB or 2GB"):
        parse_size(text)


def refusal_of(tmp_path: Path, text: str, model: type[BaseModel] = Settings) -> str:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(file, model)
    return str(caught.value).removeprefix(f"{file}: ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("test: {ways: 1}", "test.ways = 1: starts at 1; use 2 or more"),
        ("test: {ways: 0-0}", "test.ways = '0-0': starts at 0; use 2 or more"),
        ("test: {shots: 0}", "test.shots = 0: starts at 0; use 1 or more"),
        ("test: {protocol: crossdomain}", "test.protocol = 'crossdomain': Input should be 'within-domain'"),
        ("seed: -1", "seed = -1: Input should be greater than or equal to 0"),
        ("seed: 4294967296", "seed = 4294967296: Input should be less than or equal to 4294967295"),
        ("time_budget: 0", "time_budget = 0.0: Input should be greater than 0"),
        ("memory_budget: 0", "memory_budget = 0: Input should be greater than 0"),
        ("time_budget: 1:30", "time_budget = '1:30': `1:30` is not a duration; write 30ms, 90s, 10m or 2h"),
        ("feature_cache: ''", "feature_cache = '': names no folder; name one, or leave out feature_cache"),
        ("feature_cache: ~nobody.here/x", "feature_cache = '~nobody.here/x': there is no such home; name"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, text: str, told: str) -> None:
    assert refusal_of(tmp_path, text).startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed: 1\nseed: 2\n", "(`seed` stands in line 1 and again in line 2); correct it"),
        ("test:\n  ways: 5\n  ways: 6\n", "(`ways` stands in line 2 and again in line 3); correct it"),
        ("time-budget: 60s\ntime_budget: 2h\n", "`time-budget` and `time_budget` are one key; keep one"),
    ],
)
def test_a_key_stands_once(tmp_path: Path, text: str, told: str) -> None:
    assert told in refusal_of(tmp_path, text)


def test_a_merged_key_may_stand_again(tmp_path: Path) -> None:
    """Also where a mapping that took in another one is taken in before it is read itself."""
    text = "one:\n  two: &a\n    <<: {ways: 5, shots: 1}\n    ways: 6\nthree:\n  <<: *a\n"
    read = _Loader(text).get_single_data()
    assert read == {"one": {"two": {"ways": 6, "shots": 1}}, "three": {"ways": 6, "shots": 1}}
    told = refusal_of(tmp_path, "test:\n  <<: {shots: 1}\n  ways: 6\n  ways: 7\n")
    assert "`ways` stands in line 3 and again in line 4" in told


def test_numbers_are_those_that_people_write(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("seed: 010\ntest: {ways: 010, queries_per_class: 1_0}\ntime_budget: 1.5\n")
    settings = load_yaml(file, Settings)
    assert (settings.seed, settings.test.ways, settings.test.queries_per_class) == (10, (10, 10), 10)
    assert settings.time_budget == 1.5


def test_the_cache_may_be_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "s.yaml"
    file.write_text("feature_cache: ~/features\n")
    assert load_yaml(file, Settings).feature_cache == tmp_path / "features"
    file.write_text("feature_cache: features\n")
    assert load_yaml(file, Settings).feature_cache == Path("features")


def test_a_file_may_leave_the_output_of_a_run_to_resume_to_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("resume: true\n")
    in_file = load_yaml(file, RunOptions).model_dump(exclude_unset=True)
    with pytest.raises(ConfigError, match="set output to the folder"):
        validate_settings(RunOptions, in_file, "options")
    whole = validate_settings(RunOptions, in_file | {"output": tmp_path}, "options")
    assert whole.resume and whole.output == tmp_path
    assert "overwrite would delete" in refusal_of(tmp_path, "resume: true\noverwrite: true\n", RunOptions)


SPEEDS = dict.fromkeys(("heads", "embedding", "start", "disk"), 1.0)
RECIPE: dict[str, Any] = yaml.safe_load(min(FOLDER.rglob("*.yaml")).read_text())


@pytest.mark.parametrize(
    ("model", "values", "told"),
    [
        (
            PaperRecipe,
            RECIPE | {"learning": {"learner": "anil", "training": {"clop": 1}}},
            "unknown key `learning.training.clop`; did you mean `clip`?",
        ),
        (
            Profile,
            {"name": "a", "cores": 2, "memory": "4GB", "measured": SPEEDS | {"embeding": 2}},
            "unknown key `measured.embeding`; did you mean `embedding`?",
        ),
    ],
)
def test_known_keys_are_those_of_the_same_place(
    tmp_path: Path, model: type[BaseModel], values: dict[str, Any], told: str
) -> None:
    assert told in validation_of(model, values)


class Page(BaseModel, extra="forbid"):
    file: str = ""


class Book(BaseModel, extra="forbid"):
    pages: list[Page] = []
    named: dict[str, Page] | None = None


@pytest.mark.parametrize("values", [{"pages": [{}, {"fil": "a"}]}, {"named": {"first": {"fil": "a"}}}])
def test_unknown_keys_in_lists_and_mappings_are_explained(values: dict[str, Any]) -> None:
    assert "did you mean `file`?" in validation_of(Book, values)


def validation_of(model: type[BaseModel], values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate_settings(model, values, "here")
    return str(caught.value)
