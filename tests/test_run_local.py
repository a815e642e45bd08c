"""The main job from outside: `python run_local.py`."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import timm
from numpy.typing import NDArray
from safetensors.torch import save_file
from synthetic import MakeBundle, write_meta_album

from autometa.backbones import find_spec
from autometa.backbones.local_weights import find_local_weights
from autometa.core.errors import ConfigError
from run_local import ingestion_settings, read_options

ROOT = Path(__file__).parents[1]
LEAST_GAIN = 0.02
"""Of normalised accuracy."""


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "run_local.py"), *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        preexec_fn=listen_to_interrupts,  # noqa: PLW1509 - these tests have no threads
    )


def listen_to_interrupts() -> None:
    """What runs in the background of a shell ignores Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_local(*arguments: object) -> tuple[int, str]:
    process = start(*arguments)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def scores(output: Path) -> dict[str, float]:
    content: dict[str, float] = json.loads((output / "scoring" / "scores.json").read_text())
    return content


@pytest.mark.medium
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--time-budget", "soon"], "soon"),
        (["--time-budget", "12s"], "time_budget"),
        (["--ways", "1-3"], "ways"),
        (["--dataset", "no/such/folder"], "no/such/folder"),
        (["--submission", "nobody"], "random"),
        (["--protocol", "both"], "protocol"),
        (["--colour", "red"], "--colour"),
        (["--memory-budget", "1MB"], "memory_budget"),
        (["--resume", "--overwrite"], "give only one of them"),
        (["--backbones", "resnet18", "--preset", "tiny"], "give one of them"),
        (["--preset", "huge"], "preset"),
        (["--weights-dir", "no/such/folder"], "no/such/folder"),
        (["--image-size", "large"], "image_size"),
        (["--image-size", "4"], "image_size"),
        (
            ["--backbones", "resnet50.a1_in1k"],
            "autometa backbones fetch resnet50.a1_in1k",
        ),
        (["--backbones", "tf_efficientnet_lit0"], "did you mean tf_efficientnet_lite0?"),
        (["--submission", "prototypicl"], "did you mean prototypical?"),
    ],
)
def test_bad_arguments_exit_with_2_and_name_the_fix(arguments: list[str], named: str, tmp_path: Path) -> None:
    code, output = run_local(*arguments, "--output", tmp_path / "out")
    assert code == 2, output
    assert named in output
    assert "Traceback" not in output
    assert not (tmp_path / "out").exists()


@pytest.mark.medium
def test_a_config_file_is_read_and_the_command_line_wins(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("submission: nobody\n")
    code, output = run_local("--config", file, "--output", tmp_path / "out")
    assert code == 2
    assert "--submission nobody" in output
    code, output = run_local("--config", file, "--output", tmp_path / "out", "--submission", "no-one")
    assert code == 2
    assert "--submission no-one" in output and "nobody" not in output


def test_options_of_both_are_taken_and_those_given_twice_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("time-budget: 50s\nseed: 5\nways: 2-7\noverwrite: true\n")
    asked = {"seed": "6", "shots": "3", "overwrite": None, "time_budget": None, "output": "there"}
    options = read_options(file, asked)
    assert (options.time_budget, options.seed, options.ways, options.shots) == (50.0, 6, (2, 7), (3, 3))
    assert options.overwrite and options.output == Path("there")
    assert options.query_per_class is None and options.tasks_per_dataset == 30
    settings = ingestion_settings(options, 0.0)
    assert (settings.time_budget_s, settings.seed, settings.ways, settings.shots) == (50.0, 6, (2, 7), (3, 3))


def test_an_unknown_key_of_a_config_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("tme-budget: 10s\n")
    with pytest.raises(ConfigError, match="did you mean `time_budget`"):
        read_options(file, {})


@pytest.mark.medium
def test_an_output_in_use_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    for options in ([], ["--overwrite"]):
        code, output = run_local("--output", tmp_path, "--submission", "random", *options)
        assert code == 2
        assert "it is not the output of a run" in output
    assert (tmp_path / "mine.txt").exists()
    code, output = run_local("--output", tmp_path / "mine.txt", "--submission", "random")
    assert code == 2
    assert "cannot be used" in output


@pytest.mark.medium
def test_an_output_that_another_run_holds_is_refused(tmp_path: Path) -> None:
    with (tmp_path / ".autometa-run").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, output = run_local("--output", tmp_path, "--submission", "random", "--overwrite")
    assert code == 2
    assert "another run" in output


@pytest.mark.slow
def test_a_run_is_resumed_in_its_folder_if_it_is_of_the_same_kind(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    data, out = write_meta_album(tmp_path / "SET", [12] * 8), tmp_path / "out"
    common = ("--dataset", data, "--submission", make_bundle(), "--output", out, "--tasks-per-dataset", 3)
    code, output = run_local(*common, "--resume")
    assert code == 0, output
    assert "this one starts from the beginning" in output
    code, output = run_local(*common)
    assert code == 2
    assert "add --overwrite or --resume" in output
    (out / "scoring" / "scores.txt").unlink()  # as a kill may leave it
    code, output = run_local(*common, "--resume")
    assert code == 0, output
    assert "finds what the earlier run saved" in output
    assert scores(out)["tasks_missing"] == 0
    code, output = run_local(*common, "--resume", "--seed", 5)
    assert code == 2
    assert "seed (93 there, 5 here)" in output
    assert scores(out)["tasks_missing"] == 0


@pytest.mark.medium
def test_class_folders_are_enough(tmp_path: Path, make_bundle: MakeBundle) -> None:
    album = write_meta_album(tmp_path / "SET", [12] * 10)
    for file in sorted((album / "images").iterdir()):
        folder = tmp_path / "photos" / file.stem.split("_")[1]
        folder.mkdir(parents=True, exist_ok=True)
        file.rename(folder / file.name)
    out = tmp_path / "out"
    code, output = run_local(
        "--dataset", tmp_path / "photos", "--submission", make_bundle(), "--output", out,
        "--tasks-per-dataset", 5, "--ways", "2-3", "--sandbox", "none",
    )  # fmt: skip
    assert code == 0, output
    assert "photos" in output
    assert "report.html" in output
    assert scores(out)["normalized_accuracy"] > 0.8
    assert (out / "scoring" / "report.html").exists()


@pytest.mark.medium
def test_an_earlier_run_stays_until_the_new_input_is_sound(tmp_path: Path, make_bundle: MakeBundle) -> None:
    data, out = write_meta_album(tmp_path / "SET", [12] * 8), tmp_path / "out"
    common = ("--submission", make_bundle(), "--output", out, "--tasks-per-dataset", 2, "--overwrite")
    for part in ("ingestion", "scoring"):
        (out / part).mkdir(parents=True)
        (out / part / "earlier.txt").touch()
    (out / "ingestion" / "submission.log").touch()
    (out / ".autometa-run").touch()
    (tmp_path / "empty").mkdir()
    code, output = run_local("--dataset", tmp_path / "empty", *common)
    assert code == 2 and "empty: holds neither" in output, output
    assert all((out / part / "earlier.txt").exists() for part in ("ingestion", "scoring"))
    code, output = run_local("--dataset", data, *common)
    assert code == 0, output
    assert scores(out)["tasks_missing"] == 0 and not list(out.glob("*/earlier.txt"))


@pytest.mark.medium
def test_a_run_without_answers_exits_with_1(tmp_path: Path, make_bundle: MakeBundle) -> None:
    data = write_meta_album(tmp_path / "SET", [12] * 8)
    out = tmp_path / "out"
    code, output = run_local(
        "--dataset", data, "--submission", make_bundle(top="1 / 0"), "--output", out, "--tasks-per-dataset", 3
    )
    assert code == 1, output
    assert "ZeroDivisionError" in output
    assert scores(out)["tasks_missing"] == 3


BOOTSTRAP = """
from pathlib import Path
from api import Learner, MetaLearner, Predictor
from autometa.core.settings import Settings
from autometa.submission import AutoLearner, AutoPredictor, read_limits, read_model_dir, read_test_spec
from autometa.systems.autometa import Controller

class MyMetaLearner(MetaLearner):
    def meta_fit(self, meta_train_generator, meta_valid_generator):
        settings = Settings()
        limits, test = read_limits(settings), read_test_spec(settings)
        return AutoLearner.of(Controller(settings, test, limits, read_model_dir()).bootstrap())

class MyLearner(AutoLearner, Learner):
    pass

class MyPredictor(AutoPredictor, Predictor):
    pass
"""
"""What `autometa` starts from, and nothing more."""


GAIN_S = 60


def accuracies(output: Path) -> dict[str, list[float]]:
    """Normalised accuracy of every task, by dataset."""
    details = json.loads((output / "scoring" / "details.json").read_text())
    found: dict[str, list[float]] = {}
    for task in details["tasks"]:
        found.setdefault(task["dataset"], []).append(task["metrics"]["normalized_accuracy"])
    return found


def gains_over_bootstrap(tmp_path: Path, *arguments: object) -> dict[str, NDArray[np.float64]]:
    """By how much `autometa` is better than its bootstrap in `GAIN_S`, task by task, by dataset."""
    (tmp_path / "bootstrap").mkdir()
    (tmp_path / "bootstrap" / "model.py").write_text(BOOTSTRAP)
    for name in ("bootstrap", "autometa"):
        bundle = tmp_path / name if name == "bootstrap" else name
        out = tmp_path / f"{name}-out"
        code, output = run_local(
            "--submission", bundle, "--output", out, "--time-budget", f"{GAIN_S}s", *arguments
        )
        assert code == 0, output
        assert scores(out)["duration_s"] <= GAIN_S and scores(out)["tasks_missing"] == 0, output
    before, after = (accuracies(tmp_path / f"{name}-out") for name in ("bootstrap", "autometa"))
    assert list(before) == list(after)
    return {name: np.subtract(after[name], before[name]) for name in before}


def lower_bound(gains: NDArray[np.float64]) -> float:
    """Of the 95 % interval of their mean."""
    return float(gains.mean() - 1.96 * gains.std(ddof=1) / np.sqrt(len(gains)))


@pytest.mark.slow
def test_the_demo_in_a_minute_is_answered_better_than_by_the_bootstrap(tmp_path: Path) -> None:
    gains = gains_over_bootstrap(tmp_path)
    assert len(gains) == 3
    assert all(gain.mean() > 0 for gain in gains.values()), gains
    assert lower_bound(np.concatenate(list(gains.values()))) > LEAST_GAIN, gains
    out = tmp_path / "autometa-out"
    per_dataset = {
        k: v for k, v in scores(out).items() if k.endswith("_normalized_accuracy") and k[0].isupper()
    }
    assert len(per_dataset) == 3
    assert all(value > 0.5 for value in per_dataset.values()), per_dataset
    saved = json.loads((out / "ingestion" / "model" / "learner.json").read_text())
    assert saved["validation"]["stage"] == "final" and saved["validation"]["views"]


@pytest.mark.slow
def test_a_cross_domain_run_learns_from_some_datasets_and_answers_on_another(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "info").mkdir(parents=True)
    splits = {"meta-train": ["LETTERS", "ICONS"], "meta-test": ["CLIPART"]}
    (root / "info" / "meta_splits.txt").write_text(json.dumps(splits))
    for name in ("LETTERS", "ICONS", "CLIPART"):
        (root / name).symlink_to(ROOT / "examples" / "demo" / name)
    gains = gains_over_bootstrap(tmp_path, "--dataset", root, "--query-per-class", 5)
    assert list(gains) == ["CLIPART"]
    results = tmp_path / "autometa-out" / "ingestion"
    assert json.loads((results / "ingestion.json").read_text())["protocol"] == "cross-domain"
    assert "pool: 1420 images, 71 classes, 2 dataset(s)" in (results / "submission.log").read_text()
    assert lower_bound(gains["CLIPART"]) > 0, gains


@pytest.mark.slow
def test_a_run_chooses_among_eight_backbones_of_a_folder(tmp_path: Path) -> None:
    """Tiny ones with random weights; one that is not there is left out with the command that gets it."""
    names = ["resnet", "vit", "convnext", "convnext2", "efficientnet", "byobnet", "mambaout", "nfnet"]
    names = [f"test_{name}" for name in names]
    missing = "mobilenetv4_conv_small.e2400_r224_in1k"
    for name in names:
        state = timm.create_model(name).state_dict()
        save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / f"{name}.safetensors")
    output = tmp_path / "run"
    options = [
        "--weights-dir",
        tmp_path,
        "--backbones",
        ",".join([names[0], missing, *names[1:]]),
    ]
    data = ROOT / "examples" / "demo" / "LETTERS"
    status, said = run_local("--dataset", data, "--time-budget", "60s", "--output", output, *options)
    assert status == 0, said
    log = (output / "ingestion" / "submission.log").read_text()
    assert sum(f"probe: {name} " in log for name in names) >= 2, log  # as many as there is time for
    if not find_local_weights(find_spec(missing)):
        assert f"run: python -m autometa.backbones fetch {missing}" in log
    record = json.loads((output / "ingestion" / "ingestion.json").read_text())
    assert not record["failures"] and record["duration_s"] < 60


@pytest.mark.slow
def test_random_answers_are_at_chance(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, output = run_local("--submission", "random", "--output", out, "--tasks-per-dataset", 40)
    assert code == 0, output
    result = scores(out)
    assert abs(result["normalized_accuracy"]) < 1.5 * result["normalized_accuracy_ci95"]


def kill_submission(process: subprocess.Popen[str]) -> bool:
    """Kill every Python process of the submission, whatever confines it."""
    killed = False
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            command = child.cmdline()
        except psutil.ZombieProcess:
            continue
        if "ingestion.child" in command and command[0] != "bwrap":
            child.kill()
            killed = True
    return killed


@pytest.mark.slow
@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGINT)], ids=["one", "two"])
def test_a_signal_in_the_search_ends_the_search_and_another_one_the_run(
    tmp_path: Path, signals: tuple[signal.Signals, ...]
) -> None:
    out = tmp_path / "out"
    process = start("--time-budget", "300s", "--output", out, "--tasks-per-dataset", 20)
    for number, sign in zip(signals, ("model/learner.json", "task_2.predict"), strict=False):
        deadline = time.monotonic() + 90
        while not (out / "ingestion" / sign).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
    output, _ = process.communicate(timeout=180)
    assert "the learner saved before answers the tasks; interrupt again to stop the run" in output
    result = scores(out)
    assert result["duration_s"] < 200
    if len(signals) == 1:
        assert process.returncode == 0 and result["tasks_missing"] == 0, output
        assert result["normalized_accuracy"] > 0.3
    else:
        assert process.returncode == 1 and 0 < result["tasks_missing"] < 60, output


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["meta-train", "meta-test"])
def test_a_killed_submission_still_gets_a_full_set_of_scores(tmp_path: Path, phase: str) -> None:
    out = tmp_path / "out"
    process = start("--time-budget", "40s", "--output", out, "--tasks-per-dataset", 20)
    sign = "model/learner.json" if phase == "meta-train" else "task_5.predict"
    deadline = time.monotonic() + 60
    while not (out / "ingestion" / sign).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert kill_submission(process)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    result = scores(out)
    assert result["tasks"] == 60
    assert result["tasks_missing"] <= 1
    assert result["normalized_accuracy"] > 0.5
    assert result["duration_s"] <= 40
