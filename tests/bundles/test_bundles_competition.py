"""Competitions: what Codabench takes, what goes where, and that no label of a query is in the input data."""

from __future__ import annotations

import copy
import itertools
import json
import re
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from pydantic import ValidationError
from synthetic import write_meta_album

from autometa.bundles.competition import Plan, make_competition
from autometa.bundles.competition_check import check_competition
from autometa.bundles.errors import BundleError
from autometa.bundles.image import IMAGE_PACKAGES
from autometa.bundles.schema import Competition, Phase
from autometa.bundles.shipped import ROOT
from autometa.bundles.yaml_text import yaml_text
from autometa.cli.bundle import bundle as command
from autometa.core.errors import ConfigError
from autometa.core.settings import load_yaml, validate_settings
from ingestion.drawn_tasks import DrawnTasks

PLAN = Plan(tasks=3, query_per_class=4, start="2027-01-31", time_budget_s=100.0)


@pytest.fixture(scope="module")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A competition of two datasets, 9 classes of 12 images each."""
    folder = tmp_path_factory.mktemp("competition")
    for name, px in (("ONE", 32), ("TWO", 33)):
        write_meta_album(folder / "data" / name, [12] * 9, px)
    archive = folder / "competition.zip"
    made = make_competition(folder / "data", archive, PLAN)
    assert made.tasks == 12 and made.datasets == ["ONE", "TWO"] and made.size_bytes == archive.stat().st_size
    return archive


def read(archive: Path, name: str) -> bytes:
    with zipfile.ZipFile(archive) as bundle:
        return bundle.read(name)


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as bundle:
        return bundle.namelist()


def drawn(archive: Path, phase: int) -> tuple[DrawnTasks, list[dict[str, Any]]]:
    truth = json.loads(read(archive, f"reference_data_{phase}/truth.json"))
    return DrawnTasks.model_validate_json(read(archive, f"input_data_{phase}/tasks.json")), truth["tasks"]


@pytest.mark.medium
def test_it_is_sound_and_has_everything(competition: Path) -> None:
    assert check_competition(competition) == []
    found = set(names(competition))
    assert {"competition.yaml", "logo.png", "Dockerfile", "pages/terms.md", "solutions/random.zip"} <= found
    for program in ("ingestion", "scoring"):
        assert f"{program}_program/{program}/__main__.py" in found
        line = read(competition, f"{program}_program/metadata.yaml").decode()
        assert line.startswith(f"command: python3 -m {program} ") and line.count("\n") == 1
    assert {"starting_kit/bundles/autometa/autometa/submission.py", "starting_kit/README.md"} <= found
    assert read(competition, "logo.png")[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", read(competition, "logo.png")[16:24]) == (96, 96)


@pytest.mark.medium
def test_dates_are_texts_and_limits_fit(competition: Path) -> None:
    text = read(competition, "competition.yaml").decode()
    assert 'start: "2027-01-31 00:00:00"' in text
    assert "execution_time_limit: 160" in text  # more than the time budget


@pytest.mark.medium
@pytest.mark.parametrize("phase", [0, 1])
def test_no_image_of_a_query_is_shown_with_a_label(competition: Path, phase: int) -> None:
    content, truth = drawn(competition, phase)
    assert len(content.tasks) == len(truth) == 6
    shown: dict[int, set[int]] = {}
    asked: dict[int, set[int]] = {}
    for task, true in zip(content.tasks, truth, strict=True):
        shown.setdefault(task.dataset, set()).update(task.support)
        asked.setdefault(task.dataset, set()).update(task.query)
        assert sorted(true["labels"]) == sorted(list(range(task.ways)) * 4)
        assert sorted(task.support_labels) == sorted(list(range(task.ways)) * task.shots)
    for number, dataset in enumerate(content.datasets):
        assert shown[number].isdisjoint(asked[number])
        assert all(dataset.images[place].label is None for place in asked[number])
        files = [image.file for image in dataset.images]
        assert set(files) <= {name.removeprefix(f"input_data_{phase}/") for name in names(competition)}
        assert all(re.fullmatch(r"(train|test)/\d+/\d{6}\.png", file) for file in files)


@pytest.mark.medium
def test_the_truth_is_that_of_the_images(competition: Path, tmp_path: Path) -> None:
    """Labels of queries, found by the content of the files, are those of the truth, up to the order of classes."""
    write_meta_album(tmp_path / "ONE", [12] * 9)
    known = {file.read_bytes(): file.name.split("_")[1] for file in (tmp_path / "ONE" / "images").iterdir()}
    content, truth = drawn(competition, 0)
    task, true = content.tasks[0], truth[0]
    images = content.datasets[task.dataset].images
    class_of = [known[read(competition, f"input_data_0/{image.file}")] for image in images]
    by_label = {
        label: class_of[place] for place, label in zip(task.support, task.support_labels, strict=True)
    }
    assert [class_of[place] for place in task.query] == [by_label[label] for label in true["labels"]]
    assert len(set(by_label.values())) == task.ways


@pytest.mark.medium
def test_phases_have_other_tasks_and_a_seed_gives_the_same_bundle(competition: Path, tmp_path: Path) -> None:
    first, second = drawn(competition, 0)[0], drawn(competition, 1)[0]
    assert first.tasks != second.tasks
    make_competition(competition.parent / "data", tmp_path / "again.zip", PLAN)
    assert (tmp_path / "again.zip").read_bytes() == competition.read_bytes()


@pytest.mark.medium
def test_the_image_installs_named_packages_and_copies_nothing(competition: Path) -> None:
    lines = read(competition, "Dockerfile").decode().splitlines()
    instructions = [line for line in lines if line and not line.startswith(("#", " "))]
    assert [line.split()[0] for line in instructions] == ["FROM", "RUN", "RUN", "ENV", "WORKDIR"]
    assert instructions[0] == "FROM python:3.11-slim"
    packages = [line.strip(" \\") for line in lines if "==" in line]
    assert [package.split("==")[0] for package in packages] == list(IMAGE_PACKAGES)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", package) for package in packages)
    assert not any("http" in line for line in lines)
    for line, following in itertools.pairwise(lines):
        assert line.endswith("\\") == following.startswith("    ")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(time_budget_s=900.0), "the default queue ends a run after 600 s"),
        (Plan(start="31.1.2027"), "is no date; write it as 2027-01-31"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(
    competition: Path, tmp_path: Path, plan: Plan, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        make_competition(competition.parent / "data", tmp_path / "c.zip", plan)
    assert not (tmp_path / "c.zip").exists()


def test_datasets_that_are_in_both_parts_are_refused(tmp_path: Path) -> None:
    write_meta_album(tmp_path / "data" / "ONE", [30] * 4)
    (tmp_path / "data" / "info").mkdir()
    splits = {"meta-train": ["ONE"], "meta-test": ["ONE"]}
    (tmp_path / "data" / "info" / "meta_splits.txt").write_text(json.dumps(splits))
    with pytest.raises(BundleError, match="a competition needs them apart"):
        make_competition(tmp_path / "data", tmp_path / "c.zip", Plan())


@pytest.mark.medium
def test_images_that_cannot_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    folder = write_meta_album(tmp_path / "ONE", [12] * 6)
    (folder / "images" / "ONE_000_003.png").write_bytes(b"broken")
    made = make_competition(folder, tmp_path / "c.zip", PLAN)
    assert any("ONE_000_003.png: left out" in note for note in made.notes)


def description(archive: Path, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "competition.yaml").write_bytes(read(archive, "competition.yaml"))
    return load_yaml(tmp_path / "competition.yaml", Competition).model_dump(mode="json", exclude_none=True)


def set_path(content: dict[str, Any], path: str, value: Any) -> None:
    *outer, last = path.split(".")
    place: Any = content
    for key in outer:
        place = place[int(key)] if key.isdigit() else place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 1, "version"),
        ("title", "x" * 257, "256"),
        ("terms", None, "terms"),
        ("leaderboards", None, "leaderboards"),
        ("docker_image", "x" * 129, "128"),
        ("phases.0.end", None, "only the last may lack it"),
        ("phases.1.start", "2027-02-01 00:00:00", "has to start after the end of `Development`"),
        ("phases.0.start", "tomorrow", "no date like"),
        ("phases.0.start", 20270131, "put the date in quotes"),
        ("phases.0.auto_migrate_to_this_phase", True, "the first phase cannot"),
        ("phases.0.tasks", [7], "no task has the index 7"),
        ("tasks.0.scoring_program", None, "`name` and `scoring_program`"),
        ("tasks.1.index", 0, "index of a task 0 appears twice"),
        ("leaderboards.0.key", "x" * 37, "36"),
        ("leaderboards.0.submission_rule", "Best", "submission_rule"),
        ("leaderboards.0.columns.0.index", 9, "no column has index 0"),
        ("leaderboards.0.columns.1.key", "normalized_accuracy", "appears twice"),
        ("leaderboards.0.columns.1.key", "x" * 37, "36"),
        ("leaderboards.0.columns.0.computation_indexes", [99], "computed from columns that do not exist"),
        ("solutions.0.path", None, "needs a `path` or a `key`"),
    ],
)
def test_the_schema_has_the_rules_of_the_platform(
    competition: Path, tmp_path: Path, path: str, value: Any, message: str
) -> None:
    content = copy.deepcopy(description(competition, tmp_path))
    validate_settings(Competition, content, "sound")
    if "computation" in path:
        set_path(content, "leaderboards.0.columns.0.computation", "avg")
    set_path(content, path, value)
    with pytest.raises(ConfigError, match=message):
        validate_settings(Competition, content, "changed")


def changed_zip(archive: Path, target: Path, change: dict[str, bytes | None]) -> Path:
    """The same zip file with some files replaced, added or (None) left out."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copied:
        for name in source.namelist():
            if name not in change:
                copied.writestr(name, source.read(name))
        for name, content in change.items():
            if content is not None:
                copied.writestr(name, content)
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"competition.yaml": None}, "is not at the root"),
        ({"competition.yaml": b"version: 2\n"}, "competition.yaml: title"),
        ({"pages/terms.md": b" \n"}, "terms: pages/terms.md is empty"),
        ({"pages/data.md": None}, "pages/data.md is not in the zip file"),
        ({"scoring_program/metadata.yaml": None}, "scoring_program has no metadata.yaml"),
        ({"scoring_program/metadata.yaml": b"x: 1\n"}, "has no command"),
        ({"input_data_0/truth.json": b"{}"}, "may tell labels of the test to submissions"),
        ({"input_data_0/test/0/000000.png": None}, "input_data_0/test/0/000000.png is not in the zip file"),
        ({"reference_data_1/truth.json": None}, "reference_data_1 is not in the zip file"),
        ({"input_data_1/tasks.json": b"{}"}, "input_data_1/tasks.json"),
    ],
)
def test_what_is_wrong_with_a_bundle_is_named(
    competition: Path, tmp_path: Path, change: dict[str, bytes | None], message: str
) -> None:
    problems = check_competition(changed_zip(competition, tmp_path / "changed.zip", change))
    assert any(message in problem for problem in problems), problems


@pytest.mark.medium
def test_the_command_makes_and_checks(competition: Path, tmp_path: Path) -> None:
    target = tmp_path / "c.zip"
    flags = ["--competition", str(competition.parent / "data"), "-o", str(target), "--tasks", "2", "--json"]
    done = CliRunner().invoke(command, [*flags, "--query-per-class", "4", "--title", "Ours"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["tasks"] == 8
    assert 'title: "Ours"' in read(target, "competition.yaml").decode()
    assert CliRunner().invoke(command, ["--check", str(target)]).exit_code == 0
    broken = changed_zip(target, tmp_path / "broken.zip", {"pages/data.md": None})
    failed = CliRunner().invoke(command, ["--check", str(broken)])
    assert failed.exit_code == 1 and "pages/data.md" in failed.output
    nothing = CliRunner().invoke(command, ["--check", str(tmp_path / "nothing.zip")])
    assert nothing.exit_code == 2 and "no readable zip file" in nothing.output


def test_texts_are_quoted_in_yaml(tmp_path: Path) -> None:
    content = {
        "a": "2027-01-31",
        "b": [{"c": 1, "d": [0, 1]}, {"c": "x: y"}],
        "e": {"f": True, "g": None},
        "h": [],
    }
    (tmp_path / "x.yaml").write_text(yaml_text(content))
    assert yaml.safe_load((tmp_path / "x.yaml").read_text()) == content


def test_programs_have_every_file_of_their_packages(competition: Path) -> None:
    found = set(names(competition))
    for package in ("ingestion", "scoring"):
        files = (file for file in (ROOT / package).rglob("*") if file.is_file())
        needed = {str(file.relative_to(ROOT)) for file in files if "__pycache__" not in file.parts}
        needed = {name for name in needed if not name.endswith("py.typed")}
        assert needed <= {name.removeprefix(f"{package}_program/") for name in found}


def test_what_is_a_query_in_one_phase_has_a_label_in_none(competition: Path) -> None:
    with zipfile.ZipFile(competition) as bundle:
        content = {name: bundle.read(name) for name in bundle.namelist()}
    labelled: set[tuple[str, bytes]] = set()
    asked: set[tuple[str, bytes]] = set()
    for phase in (0, 1):
        tasks, _ = drawn(competition, phase)
        for dataset in tasks.datasets:
            for image in dataset.images:
                data = content[f"input_data_{phase}/{image.file}"]
                (asked if image.label is None else labelled).add((dataset.name, data))
    assert asked and labelled and not asked & labelled
    first, second = (drawn(competition, phase)[0].tasks for phase in (0, 1))
    assert first != second


@pytest.mark.medium
def test_doubles_are_left_out_of_a_competition(tmp_path: Path) -> None:
    data = write_meta_album(tmp_path / "ONE", [12] * 9)
    images = sorted((data / "images").iterdir())
    images[1].write_bytes(images[0].read_bytes())
    made = make_competition(data, tmp_path / "competition.zip", PLAN)
    assert any("twice" in note for note in made.notes), made.notes


@pytest.mark.medium
def test_no_query_has_a_twin_with_a_label_even_in_a_root_whose_splits_are_fixed(tmp_path: Path) -> None:
    """Images that are there twice, and one of them in a dataset to learn from, too."""
    root = tmp_path / "root"
    for name, px in (("LEARNED", 32), ("ASKED", 33)):
        images = write_meta_album(root / name, [24] * 6, px) / "images"
        for label, number in itertools.product(range(6), range(12)):
            first, second = (images / f"{name}_{label:03}_{n:03}.png" for n in (number, 12 + number))
            second.write_bytes(first.read_bytes())
    shared = root / "ASKED" / "images" / "ASKED_000_000.png"
    shared.write_bytes((root / "LEARNED" / "images" / "LEARNED_000_000.png").read_bytes())
    (root / "info").mkdir()
    splits = {"meta-train": ["LEARNED"], "meta-test": ["ASKED"]}
    (root / "info" / "meta_splits.txt").write_text(json.dumps(splits))
    archive = tmp_path / "c.zip"
    made = make_competition(root, archive, PLAN)
    assert any("in two classes or more, left out" in note for note in made.notes), made.notes
    for phase in (0, 1):
        tasks, _ = drawn(archive, phase)
        images_of = [image for dataset in tasks.datasets for image in dataset.images]
        content = {image.file: read(archive, f"input_data_{phase}/{image.file}") for image in images_of}
        assert len(set(content.values())) == len(content)


@pytest.mark.medium
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_check_finds_a_query_with_a_label_elsewhere(competition: Path, tmp_path: Path, slash: str) -> None:
    tasks, _ = drawn(competition, 0)
    images = tasks.datasets[0].images
    query, shown = (next(one for one in images if (one.label is None) == asked) for asked in (True, False))
    copied = {f"input_data_0/{query.file}": read(competition, f"input_data_0/{shown.file}")}
    text = read(competition, "competition.yaml").decode()
    named = re.sub(r"(input_data_0|scoring_program)(?=\"?$)", rf"\1{slash}", text, flags=re.MULTILINE)
    assert (named != text) == bool(slash)
    changed = changed_zip(
        competition,
        tmp_path / "c.zip",
        {**copied, "competition.yaml": named.encode(), "input_data_0/labels.csv": b""},
    )
    problems = check_competition(changed)
    twin = (
        f"input_data_0/{query.file}, a query, has the content of {shown.file}, which is shown with its label"
    )
    assert any(problem.endswith(twin) for problem in problems), problems
    assert any("labels.csv may tell labels" in problem for problem in problems) and len(problems) == 2


def test_dates_with_and_without_a_zone_are_compared() -> None:
    given: dict[str, Any] = {"name": "one", "tasks": [0], "start": "2027-01-01T00:00:00Z"}
    assert Phase.model_validate(given | {"end": "2027-01-01 00:00:01"}).end
    with pytest.raises(ValidationError, match="ends before it starts"):
        Phase.model_validate(given | {"end": "2026-12-31 23:59:59"})


@pytest.mark.medium
@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (replace(PLAN, title="x" * 257), "is not written, since its check finds: competition.yaml: title"),
        (replace(PLAN, days=4_000_000), "--days 4000000: ends after the year 9999"),
    ],
)
def test_what_cannot_become_a_competition_leaves_the_earlier_one(
    competition: Path, tmp_path: Path, plan: Plan, told: str
) -> None:
    earlier = tmp_path / "c.zip"
    earlier.write_bytes(b"earlier")
    with pytest.raises(BundleError, match=re.escape(told)):
        make_competition(competition.parent / "data", earlier, plan, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["c.zip"] and earlier.read_bytes() == b"earlier"
