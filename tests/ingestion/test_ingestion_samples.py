"""Pictures for the report: small, of images that tasks have, and written when the submission has ended."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from synthetic import MakeBundle, write_meta_album

from ingestion import IngestionSettings, run, samples

TASKS = 3
SUBMISSION = """
        assert not (Path(os.environ["METADL_MODEL_DIR"]).parent / "samples.json").exists()
        return MyLearner()
"""


def drawn(tmp_path: Path, make_bundle: MakeBundle) -> dict[str, Any]:
    for name in ("A", "B"):
        write_meta_album(tmp_path / "data" / name, [9] * 12)
    settings = IngestionSettings(
        input_data_dir=tmp_path / "data",
        submission=make_bundle(meta_fit=SUBMISSION),
        output_dir=tmp_path / "out",
        image_size=16,
        test_tasks_per_dataset=TASKS,
        query_images_per_class=4,
        sandbox="none",
    )
    assert not run(settings, lambda event: None).failures
    content: dict[str, Any] = json.loads((tmp_path / "out" / "samples.json").read_text())
    return content


@pytest.mark.medium
def test_classes_and_episodes_have_pictures(tmp_path: Path, make_bundle: MakeBundle) -> None:
    content = drawn(tmp_path, make_bundle)
    truth = json.loads((tmp_path / "out" / "truth.json").read_text())["tasks"]
    assert content["format"] == samples.FORMAT
    assert [len(classes) for classes in content["tasks"]] == [task["ways"] for task in truth]
    assert len(content["episodes"]) == samples.EPISODES
    for task, classes in zip(truth, content["tasks"], strict=True):
        assert {content["classes"][place]["dataset"] for place in classes} == {task["dataset"]}
    for each in content["classes"]:
        assert each["name"].startswith("class ") and 1 <= len(each["pictures"]) <= 2
        with Image.open(io.BytesIO(base64.b64decode(each["pictures"][0]))) as picture:
            assert (picture.format, picture.size) == ("JPEG", (16, 16))
    for episode in content["episodes"]:
        task = truth[episode["task"] - 1]
        assert len(episode["support"]) == task["ways"]
        assert all(0 <= query["position"] < len(task["labels"]) for query in episode["queries"])
    assert {truth[episode["task"] - 1]["dataset"] for episode in content["episodes"]} == {"A", "B"}


@pytest.mark.medium
def test_with_little_room_every_dataset_has_some(
    tmp_path: Path, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "CLASS_CHARACTERS", 4000)
    monkeypatch.setattr(samples, "EPISODE_CHARACTERS", 0)
    content = drawn(tmp_path, make_bundle)
    shown = [each for each in content["classes"] if each["pictures"]]
    assert {each["dataset"] for each in shown} == {"A", "B"} and len(shown) < len(content["classes"])
    assert content["episodes"] == []


def test_a_file_that_cannot_be_written_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "draw_samples", lambda prepared: {})
    lines: list[str] = []
    prepared: Any = None
    samples.write_samples(tmp_path / "nowhere", prepared, lambda event: lines.append(event.text))
    assert lines == ["the report has no pictures: samples.json (No such file or directory)"]
