"""The two programs of ingestion on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from synthetic import MakeBundle, write_meta_album

from ingestion.__main__ import main
from ingestion.errors import InputError
from ingestion.truth import main as truth

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "cdmetadl_seed93.json").read_text())


def write_golden_root(root: Path) -> Path:
    """A MetaDL root with the class sizes of the golden file and empty images."""
    for name, sizes in GOLDEN["images_per_class"].items():
        (root / name / "images").mkdir(parents=True)
        pairs = [(c, shot) for c, size in enumerate(sizes) for shot in range(size)]
        if name == "GAMMA":
            pairs.sort(key=lambda pair: (pair[1], pair[0]))
        lines = ["FILE_NAME,CATEGORY", *(f"{c}_{shot}.jpg,c{c}" for c, shot in pairs)]
        (root / name / "labels.csv").write_text("\n".join(lines))
        columns = {"image_column_name": "FILE_NAME", "category_column_name": "CATEGORY"}
        (root / name / "info.json").write_text(json.dumps(columns))
    (root / "info").mkdir()
    names = list(GOLDEN["images_per_class"])
    splits = {"meta-train": names, "meta-test": names}
    (root / "info" / "meta_splits.txt").write_text(json.dumps(splits))
    return root


def test_truth_of_a_metadl_root_is_that_of_the_original(tmp_path: Path) -> None:
    root = write_golden_root(tmp_path / "root")
    file = tmp_path / "truth.json"
    flags = [f"--input_data_dir={root}", "--seed=93", "--test_tasks_per_dataset=5", f"--output={file}"]
    assert CliRunner().invoke(truth, flags).exit_code == 0
    tasks = json.loads(file.read_text())["tasks"]
    assert [t["labels"] for t in tasks] == [t["query_labels"] for t in GOLDEN["test_tasks"]]
    assert [t["dataset"] for t in tasks] == [t["dataset"] for t in GOLDEN["test_tasks"]]


@pytest.mark.medium
def test_original_flags_are_accepted(tmp_path: Path, make_bundle: MakeBundle) -> None:
    data = write_meta_album(tmp_path / "SET", [9] * 8)
    flags = (
        f"--seed=93 --verbose=False --debug_mode=1 --image_size=16 --overwrite_previous_results=True "
        f"--max_time=100 --test_tasks_per_dataset=2 --input_data_dir={data} "
        f"--output_dir_ingestion={tmp_path / 'out'} --submission_dir={make_bundle()} "
        "--query-images-per-class=4 --sandbox=none"
    )
    done = subprocess.run(
        [sys.executable, "-m", "ingestion", *flags.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 tasks done" in done.stdout


def test_bad_arguments_exit_with_2_and_name_the_option(tmp_path: Path) -> None:
    for flags, named in (
        (["--ways=20-2"], "ways"),
        (["--ways=two"], "two"),
        ([f"--input_data_dir={tmp_path}", f"--submission_dir={tmp_path}"], "model.py"),
        (["--seed=-1"], "seed"),
    ):
        result = CliRunner().invoke(main, flags)
        assert result.exit_code == 2, result.output
        assert named in result.output


def test_debug_mode_3_shows_the_machine() -> None:
    result = CliRunner().invoke(main, ["--debug_mode=3"])
    assert result.exit_code == 0
    assert "python" in result.output


def test_a_machine_on_which_no_run_can_be_watched_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise InputError("/proc: is not mounted; mount it")

    monkeypatch.setattr("ingestion.__main__.prepare_process", refuse)
    done = CliRunner().invoke(main, [])
    assert done.exit_code == 2 and done.stderr == "Error: /proc: is not mounted; mount it\n"
