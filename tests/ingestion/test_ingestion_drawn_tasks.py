"""Tasks that were drawn before, and runs whose output participants may see."""

from __future__ import annotations

import copy
import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingestion_runs import Runner
from synthetic import MakeBundle, class_image

from ingestion import IngestionSettings, InputError, decoding, run
from ingestion.drawn_tasks import read_drawn_tasks
from ingestion.outputs import OWN_FILES, prepare_output_dir

QUERIES = [(label, number) for number in (4, 5) for label in (3, 4)]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Three classes to learn from; one task of two other classes, two shots and two queries of each."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    images: list[dict[str, Any]] = []

    def add(label: int, number: int, *, train: bool, known: bool = True) -> int:
        file = f"{len(images):03}.png"
        class_image(label, number).save(folder / file)
        images.append({"file": file, "label": f"c{label}" if known else None, "train": train})
        return len(images) - 1

    for label in (0, 1, 2):
        for number in range(6):
            add(label, number, train=True)
    support = [add(label, number, train=False) for label in (3, 4) for number in (0, 1)]
    query = [add(label, number, train=False, known=False) for label, number in QUERIES]
    config = {"min_N": 2, "max_N": 2, "min_k": 2, "max_k": 2, "query_images_per_class": 2}
    task = {"dataset": 0, "ways": 2, "shots": 2}
    content = {
        "format": "autometa-tasks-1",
        "protocol": "within-domain",
        "test_config": config,
        "datasets": [{"name": "SET", "images": images}],
        "tasks": [task | {"support": support, "support_labels": [0, 0, 1, 1], "query": query}],
    }
    (folder / "tasks.json").write_text(json.dumps(content))
    return folder


@pytest.mark.medium
def test_a_submission_answers_tasks_that_were_drawn_before(
    drawn: Path, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    runner = Runner(drawn, tmp_path / "out")
    assert not runner(make_bundle(), predictions_only=True).failures
    scores = np.loadtxt(tmp_path / "out" / "task_1.predict")
    assert scores.argmax(1).tolist() == [label - 3 for label, _ in QUERIES]
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert "truth.json" not in found and "model" not in found
    record = json.loads((tmp_path / "out" / "ingestion.json").read_text())
    assert record["test_config"]["max_N"] == 2


@pytest.mark.medium
def test_images_of_the_tasks_are_decoded_first_where_time_is_short(
    drawn: Path, tmp_path: Path, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "FEW_IMAGES", 1)
    monkeypatch.setattr(decoding, "DECODING_SHARE", 0.0)
    runner = Runner(drawn, tmp_path / "out")
    assert not runner(make_bundle(), time_budget_s=60.0).failures
    assert "those of the test tasks are decoded" in runner.texts("note")
    scores = np.loadtxt(tmp_path / "out" / "task_1.predict")
    assert scores.argmax(1).tolist() == [label - 3 for label, _ in QUERIES]


@pytest.mark.medium
def test_the_learner_and_the_truth_are_kept_from_an_output_that_participants_see(
    runner: Runner, make_bundle: MakeBundle
) -> None:
    assert not runner(make_bundle(), predictions_only=True).failures
    found = {path.name for path in runner.output.iterdir()}
    assert {"task_1.predict", "ingestion.json"} <= found
    assert found.isdisjoint({"truth.json", "model", ".reserve"})


def _change(content: dict[str, Any], what: str) -> None:
    task, images = content["tasks"][0], content["datasets"][0]["images"]
    if what == "the label of a query image is given":
        images[task["query"][0]]["label"] = "c3"
    elif what == "a support image has no label":
        images[task["support"][0]]["label"] = None
    elif what == "there is no dataset 7":
        task["dataset"] = 7
    elif what == "lies outside the folder":
        images[0]["file"] = "../secret.png"
    elif what == "names an image that":
        task["query"][0] = 999
    else:
        task["support_labels"] = [0, 0, 0, 0]


@pytest.mark.parametrize(
    "what",
    [
        "the label of a query image is given",
        "a support image has no label",
        "there is no dataset 7",
        "lies outside the folder",
        "names an image that",
        "support_labels are not 0..1",
    ],
)
def test_a_wrong_entry_is_named(drawn: Path, what: str) -> None:
    content = json.loads((drawn / "tasks.json").read_text())
    assert read_drawn_tasks(drawn) is not None
    changed = copy.deepcopy(content)
    _change(changed, what)
    (drawn / "tasks.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match=what):
        read_drawn_tasks(drawn)


def test_an_image_of_a_task_that_cannot_be_read_is_an_error(
    drawn: Path, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    content = json.loads((drawn / "tasks.json").read_text())
    file = drawn / content["datasets"][0]["images"][content["tasks"][0]["query"][0]]["file"]
    file.write_bytes(b"broken")
    with pytest.raises(InputError, match=rf"{file.name}: cannot be read, but task 1 needs it"):
        Runner(drawn, tmp_path / "out")(make_bundle())


def test_drawn_tasks_are_not_divided_anew(drawn: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    (split := tmp_path / "split.json").write_text('{"meta-train": ["c0"], "meta-test": ["c1"]}')
    with pytest.raises(InputError, match=r"split\.json: the tasks in .* were drawn before; leave it out"):
        Runner(drawn, tmp_path / "out")(make_bundle(), class_split=split)


def test_a_mount_point_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "output"
    folder.mkdir()
    for name in ("task_1.predict", "of-the-platform"):
        (folder / name).touch()

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", busy)
    prepare_output_dir(folder, tmp_path / "model", overwrite=False)
    assert {path.name for path in folder.iterdir()} == {"of-the-platform", "logs"}
    assert (tmp_path / "model").is_dir()


@pytest.mark.medium
def test_a_run_leaves_only_files_that_are_known_as_its_own(runner: Runner, make_bundle: MakeBundle) -> None:
    runner(make_bundle())
    own = {path for pattern in OWN_FILES for path in runner.output.glob(pattern)}
    assert own == set(runner.output.iterdir())


def test_predictions_only_cannot_be_resumed(drawn: Path, tmp_path: Path, make_bundle: MakeBundle) -> None:
    settings = IngestionSettings(
        input_data_dir=drawn, submission=make_bundle(), output_dir=tmp_path / "out", predictions_only=True
    )
    with pytest.raises(InputError, match="no learner that resume"):
        run(settings, resume=True)
