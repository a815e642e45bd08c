"""Bundles under the programs of the original challenge, and its bundles under ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from peers import PX, SEED, TASKS, answers, original_folder, run_original, with_api, write_root
from synthetic import MakeBundle

from autometa.bundles.solution import Options, make_solution
from ingestion import Event, IngestionSettings, run
from ingestion.bundle import open_bundle

GOLDEN = Path(__file__).parents[1] / "golden" / "cdmetadl_answers.json"
"""What the original ingestion program, run unchanged, made of the bundle of these tests."""
RUNNABLE = ["random", "protonet", "matchingnet", "maml_batch", "finetuning_episodic"]
"""Its baselines that need neither other packages nor more than two minutes on two cores, at few pixels."""


def run_ours(root: Path, bundle: Path, output: Path, seconds: float) -> tuple[dict[int, str], str]:
    events: list[Event] = []
    settings = IngestionSettings(
        input_data_dir=root,
        submission=bundle,
        output_dir=output,
        seed=SEED,
        image_size=PX,
        test_tasks_per_dataset=TASKS,
        time_budget_s=seconds,
        sandbox="none",
    )
    result = run(settings, events.append)
    return result.failures, "\n".join(event.text for event in events[-60:])


@pytest.mark.medium
def test_our_program_gets_the_answers_that_the_original_got(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = write_root(tmp_path / "root")
    failures, log = run_ours(root, make_bundle(), tmp_path / "ours", 60.0)
    assert not failures, log
    assert answers(tmp_path / "ours") == json.loads(GOLDEN.read_text())["answers"]


@pytest.mark.medium
def test_the_original_program_runs_our_zip_and_gets_these_answers(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    original, root = original_folder(), write_root(tmp_path / "root")
    archive = tmp_path / "s.zip"
    assert make_solution(str(with_api(make_bundle())), archive, Options(dry_run_s=None)).succeeded
    bundle = open_bundle(archive, tmp_path / "unpacked")
    run_original(original, root, bundle, tmp_path / "theirs")
    assert answers(tmp_path / "theirs") == json.loads(GOLDEN.read_text())["answers"]


@pytest.mark.medium
@pytest.mark.parametrize("name", RUNNABLE)
def test_a_baseline_of_the_original_runs_unchanged(tmp_path: Path, name: str) -> None:
    original, root = original_folder(), write_root(tmp_path / "root")
    failures, log = run_ours(root, original / "baselines" / name, tmp_path / "out", 240.0)
    assert not failures, log
