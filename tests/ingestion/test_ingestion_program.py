"""Whole runs with small submissions, well behaved and not: what goes wrong costs only what it touches."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from ingestion_runs import TASKS, Runner
from synthetic import MakeBundle

from ingestion.errors import InputError


@pytest.mark.medium
def test_a_run_leaves_everything_that_scoring_needs(runner: Runner, make_bundle: MakeBundle) -> None:
    check = """
        task = next(iter(meta_train_generator(1)))
        assert meta_valid_generator is None and self.train_classes == 3, self.train_classes
        self.log(task, np.eye(task.num_ways)[task.query_set[1]])
        print("submission speaks")
        return MyLearner()
    """
    result = runner(make_bundle(meta_fit=check, config={"train_config": {"N": 3}}))
    assert result.succeeded
    assert not result.failures
    assert all(runner.accuracy(task) > 0.7 for task in range(1, TASKS + 1))
    assert "submission speaks" in runner.texts("line")
    assert "submission speaks" in (runner.output / "submission.log").read_text()
    assert (runner.output / "logs" / "meta_train" / "performance.csv").exists()
    assert (runner.output / "logs" / "experimental_settings.txt").exists()
    metadata = yaml.safe_load((runner.output / "metadata_ingestion").read_text())
    assert list(metadata) == [
        "Total execution time",
        "Meta-train time",
        "Meta-test time",
        "Number of test datasets",
        "Tasks per dataset",
    ]
    assert metadata["Total execution time"] >= metadata["Meta-test time"]
    assert not list(runner.output.rglob("*.pickle"))


@pytest.mark.medium
def test_failures_cost_only_their_task(runner: Runner, make_bundle: MakeBundle) -> None:
    """An exception, a wrong shape, NaN, and a process that ends: four tasks, then a good one."""
    top = """
        COUNTER = Path(os.environ["METADL_MODEL_DIR"]) / "count"
        def task_number():
            n = int(COUNTER.read_text()) + 1 if COUNTER.exists() else 1
            COUNTER.write_text(str(n))
            return n
    """
    predict = """
        n = task_number()
        if n == 1: raise ZeroDivisionError("first task")
        if n == 2: return np.zeros((3, 2))
        if n == 3: return np.full((len(query_set), self.ways), np.nan)
        if n == 4: os._exit(3)
        return self.nearest(query_set)
    """
    result = runner(make_bundle(top=top, predict=predict), test_tasks_per_dataset=6)
    assert sorted(result.failures) == [1, 2, 3, 4]
    assert "ZeroDivisionError: first task" in result.failures[1]
    assert "shape [3, 2]" in result.failures[2]
    assert "NaN" in result.failures[3]
    assert "exited with status 3" in result.failures[4]
    assert "Traceback" in runner.texts("failure")
    assert "in predict" in runner.texts("failure")
    assert np.isnan(runner.accuracy(1))
    assert runner.accuracy(5) > 0.7
    assert result.succeeded
    record = json.loads((runner.output / "ingestion.json").read_text())
    assert set(record["failures"]) == {"1", "2", "3", "4"}


@pytest.mark.medium
def test_each_task_says_how_many_are_left_to_a_new_process_too(
    runner: Runner, make_bundle: MakeBundle
) -> None:
    fit = """
        left = [int(os.environ[f"METADL_{name}_LEFT"]) for name in ("TASKS", "IMAGES")]
        print("left", os.getpid(), *left, len(support_set[0]))
        print("limit", os.environ.get("METADL_TASK_LIMIT_S"))
        if left[0] == 3: os._exit(3)
        return MyPredictor(support_set)
    """
    result = runner(make_bundle(fit=fit), time_budget_s=300)
    assert sorted(result.failures) == [2]
    lines = [line.split()[1:] for line in runner.texts("line").splitlines() if line.startswith("left")]
    assert [int(tasks) for _, tasks, *_ in lines] == [4, 3, 2, 1]
    assert len({pid for pid, *_ in lines}) == 2
    queries = [len(task["labels"]) for task in runner.truth()["tasks"]]
    shown = [int(support) + n for (*_, support), n in zip(lines, queries, strict=True)]
    assert [int(images) for *_, images, _ in lines] == [sum(shown[n:]) for n in range(TASKS)]
    limits = [line.split()[1] for line in runner.texts("line").splitlines() if line.startswith("limit")]
    assert all(float(limit) > 100 for limit in limits)


@pytest.mark.medium
def test_labels_are_predictions_too(runner: Runner, make_bundle: MakeBundle) -> None:
    result = runner(make_bundle(predict="return self.nearest(query_set).argmax(1)"))
    assert not result.failures
    labels = np.loadtxt(runner.output / "task_1.predict")
    assert labels.tolist() == labels.astype(int).tolist()
    assert (labels == runner.truth()["tasks"][0]["labels"]).mean() > 0.7


@pytest.mark.medium
def test_a_broken_import_is_shown_and_scores_nothing(runner: Runner, make_bundle: MakeBundle) -> None:
    result = runner(make_bundle(top="import a_module_that_is_not_there"))
    assert not result.succeeded
    assert len(result.failures) == TASKS
    assert "a_module_that_is_not_there" in runner.texts("failure")
    assert (runner.output / "truth.json").exists()
    assert len(list(runner.output.glob("task_*.predict"))) == TASKS


@pytest.mark.medium
def test_a_submission_finds_neither_truth_nor_data(runner: Runner, make_bundle: MakeBundle) -> None:
    """It searches its surroundings, its environment and its open files for labels and data."""
    search = f"""
        here = Path(os.environ["METADL_MODEL_DIR"]).parent
        assert not [p for p in here.rglob("*") if "truth" in p.name], "truth on disk"
        assert not any({str(runner.dataset)!r} in value for value in os.environ.values()), "data path"
        assert not any("labels" in os.readlink(f"/proc/self/fd/{{n}}")
                       for n in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{{n}}"))
        return self.nearest(query_set)
    """
    result = runner(make_bundle(predict=search))
    assert not result.failures


@pytest.mark.slow
def test_a_task_that_hangs_ends_at_its_limit(runner: Runner, make_bundle: MakeBundle) -> None:
    hang = """
        flag = Path(os.environ["METADL_MODEL_DIR"]) / "hung"
        if not flag.exists():
            flag.write_text("")
            time.sleep(1000)
        return self.nearest(query_set)
    """
    result = runner(make_bundle(predict=hang), max_time_s=2)
    assert list(result.failures) == [1]
    assert "ran out of time" in result.failures[1]
    assert runner.accuracy(2) > 0.7


@pytest.mark.slow
def test_meta_training_that_hangs_ends_and_what_it_saved_serves(
    runner: Runner, make_bundle: MakeBundle
) -> None:
    hang = """
        MyLearner().save(os.environ["METADL_MODEL_DIR"])
        time.sleep(1000)
    """
    began = time.monotonic()
    result = runner(make_bundle(meta_fit=hang), time_budget_s=15)
    assert time.monotonic() - began < 15
    assert not result.failures
    assert "meta-train ended early" in runner.texts("failure")


@pytest.mark.slow
def test_a_submission_that_always_hangs_ends_within_the_budget(
    runner: Runner, make_bundle: MakeBundle
) -> None:
    began = time.monotonic()
    result = runner(make_bundle(meta_fit="time.sleep(1000)", name="train"), time_budget_s=10)
    assert len(result.failures) == TASKS
    result = runner(make_bundle(predict="time.sleep(1000)", name="test"), time_budget_s=15, overwrite=True)
    assert time.monotonic() - began < 25
    assert len(result.failures) == TASKS
    assert not result.succeeded


@pytest.mark.slow
def test_too_much_memory_ends_the_submission(runner: Runner, make_bundle: MakeBundle) -> None:
    greedy = """
        hoard = [bytearray(os.urandom(1 << 20)) * 64 for _ in range(40)]
        time.sleep(2)
        return self.nearest(query_set)
    """
    result = runner(make_bundle(predict=greedy), memory_budget_bytes=1_500_000_000, test_tasks_per_dataset=1)
    assert "memory" in result.failures[1]


@pytest.mark.medium
def test_processes_left_behind_are_ended(runner: Runner, make_bundle: MakeBundle, tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    stray = f"""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True:
                    Path({str(beat)!r}).write_text(str(time.time()))
                    time.sleep(0.05)
            os._exit(0)
        time.sleep(0.3)
        return self.nearest(query_set)
    """
    runner(make_bundle(predict=stray), test_tasks_per_dataset=1)
    before = beat.read_text()
    time.sleep(0.4)
    assert beat.read_text() == before


@pytest.mark.medium
def test_a_process_left_behind_does_not_hold_up_the_run(runner: Runner, make_bundle: MakeBundle) -> None:
    """It inherits the channel, so the end of the child is not the end of the channel."""
    leave = """
        if os.fork() == 0:
            os.setsid()
            time.sleep(30)
            os._exit(0)
        os._exit(3)
    """
    began = time.monotonic()
    result = runner(make_bundle(predict=leave), test_tasks_per_dataset=2)
    assert time.monotonic() - began < 25
    assert "exited with status 3" in result.failures[1]


@pytest.mark.medium
def test_output_of_a_submission_goes_to_the_log_and_nowhere_else(
    runner: Runner, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    """It puts a link where it guesses the log, prints what is no text, and far too much."""
    trap = f"""
        for folder in (".", "logs"):
            log = Path(os.environ["METADL_MODEL_DIR"]).parent / folder / "submission.log"
            log.unlink(missing_ok=True)
            log.symlink_to({str(tmp_path / "victim")!r})
        return MyLearner()
    """
    shout = r"""
        for i in range(20_000): print("line", i)
        os.write(1, b"\xff\xfe \x1b[31m red\n")
        raise RuntimeError("bad name \udcff")
    """
    result = runner(make_bundle(meta_fit=trap, predict=shout), test_tasks_per_dataset=1)
    assert not (tmp_path / "victim").exists()
    assert "bad name" in result.failures[1]
    result.failures[1].encode()
    shown = [event.text for event in runner.events if event.kind == "line"]
    assert len(shown) < 2000
    assert not any("\x1b" in line for line in shown)


def test_the_output_must_not_lie_inside_the_dataset(runner: Runner, make_bundle: MakeBundle) -> None:
    runner.output = runner.dataset / "out"
    with pytest.raises(InputError, match="lies inside the dataset"):
        runner(make_bundle())


@pytest.mark.medium
def test_batch_mode_and_validation_on_one_dataset(runner: Runner, make_bundle: MakeBundle) -> None:
    check = """
        images, labels = next(iter(meta_train_generator(1)))
        assert images.shape == (7, 3, 16, 16), images.shape
        assert self.train_classes == self.total_classes == 3, self.total_classes
        assert len(list(meta_valid_generator(2))) == 2
        return MyLearner()
    """
    config = {"train_data_format": "batch", "batch_size": 7, "validation_datasets": 3,
              "valid_config": {"query_images_per_class": 2}}  # fmt: skip
    result = runner(make_bundle(meta_fit=check, config=config))
    assert not result.failures, result.failures
    assert "quarter of its classes" in runner.texts("note")


@pytest.mark.medium
def test_an_old_output_is_kept_or_recognised(runner: Runner, make_bundle: MakeBundle) -> None:
    bundle = make_bundle(top="raise SystemExit('quick')")
    runner.output.mkdir()
    (runner.output / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="is not emptied"):
        runner(bundle, overwrite=True)
    runner(bundle)
    assert len(list(runner.output.parent.glob("out_*/precious.txt"))) == 1
    runner(bundle, overwrite=True)
    assert len(list(runner.output.parent.glob("out_*"))) == 1


@pytest.mark.medium
def test_an_error_of_a_submission_that_reads_too_far_is_told_as_any_other(
    runner: Runner, make_bundle: MakeBundle
) -> None:
    result = runner(make_bundle(predict='raise EOFError("truncated file")'))
    assert set(result.failures.values()) == {"predict: EOFError: truncated file"}
    assert runner.texts("failure").count("Traceback") == 1, "the same one is shown once"


@pytest.mark.medium
def test_a_meta_learner_that_returns_nothing_is_told_what_to_return(
    runner: Runner, make_bundle: MakeBundle
) -> None:
    result = runner(make_bundle(meta_fit="pass"))
    assert "meta_fit returned None; it must return the learner" in result.failures[1]


@pytest.mark.medium
def test_records_of_a_search_are_no_learner(runner: Runner, make_bundle: MakeBundle) -> None:
    leave = """
        for name in ("stages.json", "journal.jsonl"):
            (Path(os.environ["METADL_MODEL_DIR"]) / name).write_text("[]")
        raise ValueError("no weights")
    """
    result = runner(make_bundle(meta_fit=leave))
    assert "no learner was saved (meta_fit: ValueError: no weights" in result.failures[1]


@pytest.mark.medium
def test_long_tracebacks_and_scores_that_are_too_large_leave_a_record_that_can_be_read(
    runner: Runner, make_bundle: MakeBundle
) -> None:
    predict = """
        if int(os.environ["METADL_TASKS_LEFT"]) == 1:
            return np.full((len(query_set), self.ways), np.longdouble("1e4000"))
        raise ValueError("x" * 90_000)
    """
    result = runner(make_bundle(predict=predict))
    assert result.failures[TASKS] == "predictions hold infinite scores"
    assert len(json.dumps(result.notes)) < 20_000 * TASKS
    assert any(note.startswith("Traceback") and note.endswith("xxx") for note in result.notes)
