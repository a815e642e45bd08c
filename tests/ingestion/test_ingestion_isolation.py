"""Isolated tasks: a submission that leaves notes wherever it can finds none of them in the next task."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import pytest
from ingestion_runs import Runner
from synthetic import MakeBundle

from ingestion.confinement import isolation_trouble

TASKS = 2
NOTES = """
import json, subprocess

NOTES = []

def places():
    model = Path(os.environ["METADL_MODEL_DIR"])
    shared = ("/tmp", "/dev/shm", "/var/tmp")
    yield from (model, model.parent / "logs", Path(os.environ["HOME"]), Path(__file__).parent, *map(Path, shared))

def times():
    return [Path(__file__).stat().st_mtime == 1, Path(__file__).stat().st_mode & 0o777 == 0o711]

def found():
    notes = [str(place) for place in places() if (place / "a-note").exists()]
    return notes + ["memory"] * bool(NOTES) + ["times"] * any(times())

def leave():
    NOTES.append(1)
    for place in places():
        try: (place / "a-note").write_text("1")
        except OSError: continue
    for attempt in (lambda: os.utime(__file__, (1, 1)), lambda: os.chmod(__file__, 0o711)):
        try: attempt()
        except OSError: continue
    loop = "while :; do echo 1 > a-note; sleep 0.05; done"
    subprocess.Popen(["/bin/sh", "-c", loop], env={"PATH": "/usr/bin:/bin"}, start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    secret = Path("secret"); secret.mkdir(); (secret / "a-note").write_text("1")
    try: secret.chmod(0o300)
    except OSError: pass
"""
TOLD = """
    spec = json.loads(os.environ["METADL_TEST_SPEC"])
    assert spec["isolated"] and not spec["standby"], spec
    deadline, trains = (float(os.environ[f"METADL_{name}DEADLINE"]) for name in ("", "META_TRAIN_"))
    assert deadline - trains > 3.0 * spec["tasks"], deadline - trains
    return MyLearner()
"""
LOOK = """
    print("FOUND", found())
    leave()
    return self.nearest(query_set)
"""
Sandbox = Literal["bubblewrap", "landlock"]


def found_by(runner: Runner) -> list[str]:
    return [
        line.removeprefix("FOUND ") for line in runner.texts("line").splitlines() if line.startswith("FOUND")
    ]


@pytest.mark.medium
def test_an_isolated_task_finds_no_note_of_the_one_before(
    runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox
) -> None:
    if trouble := isolation_trouble(sandbox):
        pytest.skip(f"--sandbox {sandbox}: {trouble}")
    before = set(Path("/dev/shm").glob("*note*"))
    bundle = make_bundle(top=NOTES, meta_fit=TOLD, predict=LOOK)
    result = runner(
        bundle, sandbox=sandbox, isolate_tasks=True, test_tasks_per_dataset=TASKS, time_budget_s=300
    )
    assert "meta-train ended early" not in runner.texts("failure")
    assert not result.failures, result.failures
    assert found_by(runner) == ["[]"] * TASKS
    assert all(runner.accuracy(task) > 0.7 for task in range(1, TASKS + 1))
    assert set(Path("/dev/shm").glob("*note*")) == before
    assert not list(runner.output.rglob("a-note"))
    record = json.loads((runner.output / "ingestion.json").read_text())
    assert record["isolate_tasks"] is True
    assert record["confinement"]["tasks"].startswith("a process for each")
    assert [
        note
        for note in record["notes"]
        if re.fullmatch(r"isolated tasks: \d+\.\d s each for a process .*", note)
    ]


@pytest.mark.medium
def test_without_isolation_the_same_notes_are_found(runner: Runner, make_bundle: MakeBundle) -> None:
    bundle = make_bundle(top=NOTES, predict=LOOK.replace("leave()", "NOTES.append(1)"))
    assert not runner(bundle, test_tasks_per_dataset=TASKS).failures
    assert found_by(runner) == ["[]", "['memory']"]
