"""The submission's account of its stages is taken as it is, or left with a reason; no link is followed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from synthetic import MakeBundle, write_meta_album

from ingestion import IngestionSettings, run
from ingestion.stages import MAX_BYTES, MAX_CHOICES_BYTES, take_stages

STAGES = '[{"stage": "probe", "predicted_s": 1.0, "actual_s": 2.0}]'


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    (folder / "model").mkdir(parents=True)
    return folder


def _take(output: Path) -> str:
    return take_stages(output / "model", output)


def test_a_file_is_copied_as_it_is(output: Path) -> None:
    (output / "model" / "stages.json").write_text(STAGES)
    assert _take(output) == ""
    assert (output / "stages.json").read_text() == STAGES


def test_what_is_no_json_is_scoring_s_to_judge(output: Path) -> None:
    (output / "model" / "stages.json").write_bytes(b"{\xff")
    assert _take(output) == ""
    assert (output / "stages.json").exists()


def test_nothing_is_said_of_a_submission_without_one(output: Path) -> None:
    assert _take(output) == ""
    assert [path.name for path in output.iterdir()] == ["model"]


def test_a_link_is_not_followed(output: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (output / "model" / "stages.json").symlink_to(tmp_path / "secret")
    assert "is a symbolic link: ignored" in _take(output)
    assert not (output / "stages.json").exists()


def test_nor_is_one_in_place_of_the_folder(output: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "stages.json").write_text("secret")
    (output / "model").rmdir()
    (output / "model").symlink_to(tmp_path / "elsewhere")
    assert "ignored" in _take(output)
    assert not (output / "stages.json").exists()


def test_a_link_in_the_output_is_replaced_not_written_through(output: Path, tmp_path: Path) -> None:
    (output / "model" / "stages.json").write_text(STAGES)
    (tmp_path / "victim").write_text("mine")
    (output / "stages.json").symlink_to(tmp_path / "victim")
    assert _take(output) == ""
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (output / "stages.json").is_symlink()


def test_folders_pipes_and_large_files_are_left(output: Path) -> None:
    file = output / "model" / "stages.json"
    file.mkdir()
    assert "is not a regular file" in _take(output)
    file.rmdir()
    os.mkfifo(file)
    assert "is not a regular file" in _take(output)
    file.unlink()
    file.write_bytes(b" " * (MAX_BYTES + 1))
    assert "is larger than 65536 bytes" in _take(output)
    assert not (output / "stages.json").exists()


def test_choices_are_taken_too(output: Path) -> None:
    (output / "model" / "choices.json").write_text("{}")
    (output / "model" / "stages.json").mkdir()
    assert _take(output) == "the submission's stages.json is not a regular file: ignored"
    assert (output / "choices.json").read_text() == "{}"
    (output / "model" / "choices.json").write_bytes(b" " * (MAX_CHOICES_BYTES + 1))
    assert "choices.json is larger than 262144 bytes: ignored" in _take(output)


@pytest.mark.medium
@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_run_takes_it(tmp_path: Path, make_bundle: MakeBundle, kind: str) -> None:
    write = f"""
        target = Path(os.environ["METADL_MODEL_DIR"]) / "stages.json"
        target.write_text({STAGES!r}) if {kind == "file"} else target.symlink_to("/etc/hostname")
        return MyLearner()
    """
    settings = IngestionSettings(
        input_data_dir=write_meta_album(tmp_path / "data" / "SET", [9] * 8),
        submission=make_bundle(meta_fit=write),
        output_dir=tmp_path / "out",
        image_size=16,
        test_tasks_per_dataset=1,
        query_images_per_class=4,
        sandbox="none",
    )
    assert not run(settings, lambda event: None).failures
    copied = tmp_path / "out" / "stages.json"
    notes = json.loads((tmp_path / "out" / "ingestion.json").read_text())["notes"]
    assert copied.exists() == (kind == "file")
    assert any("stages.json is a symbolic link" in note for note in notes) == (kind == "link")
