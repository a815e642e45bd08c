"""The account of the run informs and never breaks the scoring."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scoring.privacy import hide_names
from scoring.run_info import RunInfo, read_run_info
from scoring.text import natural_key, safe_keys, seconds_text, short_prefixes
from scoring.truth import read_truth

MakeRun = Callable[..., Path]


def test_both_files_are_read(make_run: MakeRun) -> None:
    info = {
        "time_budget_s": 60,
        "failures": {"2": "out of memory", "x": "ignored", "3": {"why": "slow"}},
        "submission": "baselines/protonet",
        "seed": 93,
        "sandbox": {"kind": "bubblewrap", "network": False},
        "set_aside": ["class 3", {"class": 4, "images": 7}],
        "notes": ["one"],
        "machine": {"cores": 4},
        "stages": [{"name": "meta-train", "seconds": 1.5}, {"name": "no time"}, 3],
        "unknown": {},
    }
    run = read_run_info(make_run(**{"ingestion.json": json.dumps(info)}))
    assert (run.duration_s, run.meta_train_s, run.meta_test_s) == (12.5, 1e-05, 2.0)
    assert run.time_budget_s == 60
    assert run.failures == {2: "out of memory", 3: "why: slow"}
    assert run.facts["sandbox"] == "kind: bubblewrap, network: no"
    assert run.set_aside == ("class 3", "class: 4, images: 7")
    assert run.machine == {"cores": "4"}
    assert run.stages == (("meta-train", 1.5),)
    assert run.notes == ("one",)


def test_absent_files_leave_a_note(tmp_path: Path) -> None:
    run = read_run_info(tmp_path)
    assert run.duration_s is None
    assert len(run.notes) == 1
    assert "metadata_ingestion is missing" in run.notes[0]


@pytest.mark.medium
@pytest.mark.parametrize(
    "content", ["[", "[" * 100_000, "a: b: c", "- 1", b"\xff\xfe\x00", "x" * 9_000_000, "&a [*a]"]
)
@pytest.mark.parametrize("name", ["metadata_ingestion", "ingestion.json"])
def test_unusable_files_leave_a_note(make_run: MakeRun, name: str, content: str | bytes) -> None:
    run = read_run_info(make_run(**{name: content}))
    assert len(run.notes) == 1
    assert run.notes[0].startswith(name)


def test_wrong_types_are_ignored(make_run: MakeRun) -> None:
    info = dict.fromkeys(["time_budget_s", "failures", "machine", "stages", "set_aside", "notes"], 7)
    deep: object = "deep"
    for _ in range(400):
        deep = [deep]
    text = json.dumps(info | {"time_budget_s": "NaN", "submission": deep})
    metadata = "Total execution time: .nan\nMeta-test time: [1]\nMeta-train time: true\n2: 3"
    run = read_run_info(make_run(**{"ingestion.json": text, "metadata_ingestion": metadata}))
    assert (run.time_budget_s, run.duration_s, run.meta_test_s, run.meta_train_s) == (None, None, None, None)
    assert (run.failures, run.machine, run.stages) == ({}, {}, ())
    assert run.facts["submission"] == "…"


def test_names_of_datasets_can_be_hidden(make_run: MakeRun) -> None:
    truth = read_truth(make_run() / "truth.json")
    run = RunInfo(
        failures={1: "no class in /data/B10/images"}, notes=("B2 and B20",), set_aside=("B2: class oak",)
    )
    hidden, hidden_run = hide_names(truth, run)
    assert hidden.datasets == ("Dataset 2", "Dataset 1")
    assert hidden_run.failures == {1: "no class in /data/Dataset 2/images"}
    assert hidden_run.notes == ("1 notes, not shown because they name private data",)
    assert "oak" not in str(hidden_run.set_aside)


def test_small_text_work() -> None:
    assert sorted(["B10", "B2", "A", "10", "9", "²"], key=natural_key) == ["9", "10", "A", "B2", "B10", "²"]
    assert safe_keys(["A-B", "A B", "µ", "数", "x"]) == ["A_B", "A_B_2", "dataset", "dataset_2", "x"]
    spoken = [seconds_text(value) for value in (None, 0.04, 59.7, 60, 185, 7620)]
    assert spoken == ["unknown", "0.0 s", "1 min", "1 min", "3 min 05 s", "2 h 07 min"]


def test_keys_of_long_names_are_cut_and_stay_distinct() -> None:
    long = [f"{'A' * 12}{end}" for end in ("x", "y", "z")]
    short = short_prefixes([*long, "B2"], "_normalized_accuracy_ci95")
    assert short == ["A" * 11, "A" * 9 + "_2", "A" * 9 + "_3", "B2"]
    assert short_prefixes(long, "_normalized_accuracy") == long
