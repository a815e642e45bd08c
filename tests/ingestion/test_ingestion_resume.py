"""A run that was killed is started again in its folder: what stays, what goes, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from synthetic import MakeBundle, write_meta_album

from ingestion import Event, IngestionSettings, run
from ingestion.__main__ import main
from ingestion.errors import InputError
from ingestion.result import IngestionResult

COUNT = """
    file = Path(os.environ["METADL_MODEL_DIR"]) / "runs.txt"
    with file.open("a") as stream: stream.write("run;")
    print("saw", file.read_text())
    return MyLearner()
"""


class Runner:
    """Runs a bundle again and again into the same folder, and keeps what it showed."""

    def __init__(self, folder: Path) -> None:
        self.dataset = write_meta_album(folder / "data" / "SET", [9] * 8)
        self.output = folder / "out"
        self.events: list[Event] = []

    def __call__(
        self, bundle: Path, *, overwrite: bool = False, resume: bool = False, **settings: Any
    ) -> IngestionResult:
        self.events.clear()
        defaults: dict[str, Any] = {
            "input_data_dir": self.dataset,
            "image_size": 16,
            "test_tasks_per_dataset": 2,
            "query_images_per_class": 4,
            "sandbox": "none",
        }
        asked = IngestionSettings(submission=bundle, output_dir=self.output, **{**defaults, **settings})
        return run(asked, self.events.append, overwrite=overwrite, resume=resume)

    @property
    def shown(self) -> str:
        return "\n".join(event.text for event in self.events)

    def files(self) -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(self.output.rglob("*")) if p.is_file()}


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.mark.medium
def test_a_resumed_run_finds_the_model_folder_of_the_earlier_one(
    runner: Runner, make_bundle: MakeBundle
) -> None:
    bundle = make_bundle(meta_fit=COUNT)
    runner(bundle)
    (runner.output / "task_1.predict").write_text("0 1 2")
    (runner.output / "ingestion.json").unlink()  # as a kill in meta-test leaves it
    again = runner(bundle, resume=True, time_budget_s=60)
    assert again.succeeded
    assert "saw run;run;" in runner.shown
    assert "resume: the submission finds what the earlier run saved" in runner.shown
    assert (runner.output / "task_1.predict").read_text() != "0 1 2"
    assert any("resume" in note for note in again.notes)
    assert not list(runner.output.parent.glob("out_*"))


@pytest.mark.medium
def test_what_no_longer_works_leaves_the_earlier_learner_to_serve(
    runner: Runner, make_bundle: MakeBundle
) -> None:
    top = """
        if (Path(os.environ["METADL_MODEL_DIR"]) / "stop").exists(): KILLED = True
    """
    meta_fit = """
        if "KILLED" in globals(): os._exit(9)
        return MyLearner()
    """
    bundle = make_bundle(top=top, meta_fit=meta_fit)
    runner(bundle)
    (runner.output / "model" / "stop").touch()
    assert not runner(bundle, resume=True).failures
    assert "meta-test uses the learner saved before" in runner.shown


@pytest.mark.medium
def test_without_an_earlier_run_it_starts_afresh_and_says_so(runner: Runner, make_bundle: MakeBundle) -> None:
    assert runner(make_bundle(meta_fit=COUNT), resume=True).succeeded
    assert f"resume: no earlier run in {runner.output}, this one starts from the beginning" in runner.shown
    assert "saw run;\n" in runner.shown + "\n"


@pytest.mark.medium
def test_a_run_of_another_kind_is_refused_and_left_alone(runner: Runner, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    runner(bundle)
    before = runner.files()
    write_meta_album(runner.dataset.parent / "OTHER", [9] * 8)
    parts = {"meta-train": ["class 0", "class 1", "class 2"], "meta-test": ["class 3", "class 4"]}
    (split := runner.output.parent / "split.json").write_text(json.dumps(parts))
    changes: list[tuple[dict[str, Any], str]] = [
        ({"seed": 94}, "seed (93 there, 94 here)"),
        ({"protocol": "cross-domain", "input_data_dir": runner.dataset.parent}, "dataset"),
        ({"ways": (2, 3)}, "tasks.max_N (20 there, 3 here)"),
        ({"shots": (1, 2)}, "tasks.max_k"),
        ({"test_tasks_per_dataset": 3}, "tasks.per_dataset (2 there, 3 here)"),
        ({"class_split": split}, "class_split (None there, "),
        ({"query_images_per_class": 3}, "tasks.query_images_per_class (4 there, 3 here)"),
    ]
    for change, named in changes:
        with pytest.raises(InputError, match="differs in") as refusal:
            runner(bundle, resume=True, **change)
        assert named in str(refusal.value)
        assert "--overwrite" in str(refusal.value)
    assert runner.files() == before


@pytest.mark.medium
def test_another_bundle_or_other_images_are_refused(
    runner: Runner, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle = make_bundle()
    runner(bundle)
    (bundle / "settings.yaml").write_text("max_trials: 3")
    with pytest.raises(InputError, match="differs in bundle"):
        runner(bundle, resume=True)
    (bundle / "settings.yaml").unlink()
    assert runner(bundle, resume=True).succeeded
    runner.dataset = write_meta_album(tmp_path / "elsewhere" / "SET", [9] * 7 + [10])
    with pytest.raises(InputError, match="differs in dataset"):
        runner(bundle, resume=True)


@pytest.mark.medium
def test_a_damaged_record_and_both_flags_are_refused(runner: Runner, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    runner(bundle)
    (runner.output / "run.json").write_text('{"seed": 9')
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        runner(bundle, resume=True)
    with pytest.raises(InputError, match="give only one of them"):
        runner(bundle, resume=True, overwrite=True)


@pytest.mark.medium
def test_the_command_resumes(runner: Runner, make_bundle: MakeBundle) -> None:
    flags = [
        f"--input_data_dir={runner.dataset}", f"--submission_dir={make_bundle(meta_fit=COUNT)}",
        f"--output_dir_ingestion={runner.output}", "--sandbox=none", "--test_tasks_per_dataset=1",
        "--query_images_per_class=4", "--image_size=16",
    ]  # fmt: skip
    for expected in ("this one starts from the beginning", "saw run;run;"):
        result = CliRunner().invoke(main, [*flags, "--resume=True"])
        assert result.exit_code == 0, result.output
        assert expected in result.output


@pytest.mark.medium
def test_images_keep_the_size_of_the_earlier_run(
    runner: Runner, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which depends on the memory that was free then."""
    bundle = make_bundle(meta_fit=COUNT)
    runner(bundle, image_size=32)
    monkeypatch.setattr("ingestion.prepare.choose_image_size", lambda *_: 64)
    assert runner(bundle, resume=True, image_size="auto").succeeded
    assert "saw run;run;" in runner.shown
