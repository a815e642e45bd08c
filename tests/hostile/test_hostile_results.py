"""Submissions that go for the results: links, traps, noise, forged lines, patched modules, shared images."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile_runs import Hostile

from ingestion import submission_log
from ingestion.meta_train import has_learner

ROUND = """
if not ROUNDS:
    ROUNDS.append(1)
    {}
return self.nearest(query_set)
"""


@pytest.mark.medium
def test_links_and_traps_lead_nowhere(hostile: Hostile, usual: list[list[float]], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    attack = """
        left = int(os.environ["METADL_TASKS_LEFT"])
        if left in (1, 3): reporting.attempt(links.ATTACKS, again=f", {left} left")
        return self.nearest(query_set)
    """
    traps = "links.leave_traps()\nreporting.attempt(links.ATTACKS)\nreturn MyLearner()"
    given = {"output": str(hostile.output), "outside": str(outside)}
    hostile.run(given, {"TOP": "import links\nimport reporting", "META_FIT": traps, "PREDICT": attack})
    rows = hostile.rows()
    assert len(rows) == 15
    assert {name: row["got"] for name, row in rows.items() if row["got"] not in ("", "[]")} == {}
    assert not list(outside.iterdir())
    assert not hostile.failures()
    assert hostile.predictions() == usual
    notes = hostile.runner.texts("note")
    assert "the submission's stages.json is a symbolic link: ignored" in notes
    assert "the submission's choices.json is not a regular file: ignored" in notes
    assert not {"stages.json", "choices.json"} & {file.name for file in hostile.output.iterdir()}


def test_links_are_no_learner(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "away").symlink_to("/etc/passwd")
    assert not has_learner(tmp_path)
    (tmp_path / "saved").touch()
    assert has_learner(tmp_path)


@pytest.mark.medium
def test_noise_forged_lines_and_patches_change_nothing(
    hostile: Hostile, usual: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission_log, "MAX_LOG_BYTES", 2**20)
    attack = """
        left = int(os.environ["METADL_TASKS_LEFT"])
        if left == 4:
            noise.shout()
            raise RuntimeError(noise.ESCAPES)
        if left == 3: noise.patch_everything()
        return self.nearest(query_set)
    """
    hostile.run({}, {"TOP": "import noise", "PREDICT": attack})
    reasons = hostile.failures()
    assert list(reasons) == [1]
    assert hostile.predictions()[1:] == usual[1:]
    shown = [event.text for event in hostile.runner.events]
    assert all(char.isprintable() or char in "\n\t" for text in shown for char in text)
    assert all("\n" not in event.text for event in hostile.runner.events if event.kind in ("line", "note"))
    assert len([event for event in hostile.runner.events if event.kind == "line"]) < 5000
    log = (hostile.output / "submission.log").read_bytes()
    assert len(log) <= 2**20
    assert not any(unwanted in log for unwanted in (b"\x1b", b"\x07", b"\x00", b"\r", "\x9b".encode()))


@pytest.mark.medium
def test_images_in_shared_memory_stay_as_they_are(hostile: Hostile, usual: list[list[float]]) -> None:
    attack = ROUND.format("reporting.attempt(images.ATTACKS)")
    hostile.run({}, {"TOP": "import images\nimport reporting\nROUNDS = []", "PREDICT": attack})
    rows = hostile.rows()
    assert len(rows) == 11
    assert {name: row["got"] for name, row in rows.items() if row["got"]} == {}
    assert not hostile.failures()
    assert hostile.predictions() == usual
