"""Scores and the files that they are read from: bounds, symmetry, and any content."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from values import JSON_VALUES, as_json, assert_one_line, objects

from scoring.choices_file import parse_choices
from scoring.errors import TruthError
from scoring.files import read_optional
from scoring.metrics import Labels, task_metrics
from scoring.predictions import read_prediction
from scoring.run_info import read_run_info
from scoring.samples_file import parse_samples
from scoring.stage_times_file import parse_stages
from scoring.truth_file import parse_truth


@st.composite
def answers(draw: st.DrawFn) -> tuple[Labels, Labels, int]:
    """Truth, prediction and ways of a task."""
    ways, queries = draw(st.integers(2, 8)), draw(st.integers(1, 30))
    labels = st.lists(st.integers(0, ways - 1), min_size=queries, max_size=queries)
    return np.array(draw(labels)), np.array(draw(labels)), ways


@given(answers())
def test_metrics_are_within_their_bounds(task: tuple[Labels, Labels, int]) -> None:
    truth, predicted, ways = task
    metrics = task_metrics(truth, predicted, ways)
    least = -1 / (ways - 1)
    assert least - 1e-12 <= metrics.pop("normalized_accuracy") <= 1 + 1e-12
    assert all(0 <= value <= 1 for value in metrics.values())
    perfect = task_metrics(truth, truth, ways)
    assert all(value == pytest.approx(1) for value in perfect.values())


@given(answers(), st.randoms(use_true_random=False))
def test_metrics_depend_neither_on_the_order_of_queries_nor_on_the_names_of_classes(
    task: tuple[Labels, Labels, int], random: np.random.Generator
) -> None:
    truth, predicted, ways = task
    order, names = list(range(len(truth))), list(range(ways))
    random.shuffle(order)
    random.shuffle(names)
    renamed = np.array(names)
    changed = task_metrics(renamed[truth[order]], renamed[predicted[order]], ways)
    assert changed == pytest.approx(task_metrics(truth, predicted, ways))


NUMBERS = st.floats(width=64) | st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, 0.0])


@st.composite
def tables(draw: st.DrawFn) -> list[list[float]]:
    """Tables of any shape near that of a task with 3 queries and 4 classes."""
    columns = draw(st.sampled_from([0, 1, 3, 4, 5]))
    row = st.lists(NUMBERS, min_size=columns, max_size=columns)
    return draw(st.lists(row, min_size=draw(st.sampled_from([0, 2, 3])), max_size=4))


@given(tables() | st.binary(max_size=300))
@example([[0.1] * 4] * 3)
@example([[1.0]] * 3)
@example([[np.nan] * 4] * 3)
@example([[np.inf, 0, 0, 0]] * 3)
@example([[-np.inf, 1e308, -1e308, 0]] * 3)
@example([[2.5]] * 3)
@example(b"1e400 0 0 0\n" * 3)
@example(b"0x10 0 0 0\n" * 3)
@example("١ 0 0 0\n".encode() * 3)
@example(b"1" * 300)
def test_any_prediction_file_is_labels_or_one_reason(content: list[list[float]] | bytes) -> None:
    text = content if isinstance(content, bytes) else "\n".join(" ".join(map(repr, row)) for row in content)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task_1.predict"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        found = read_prediction(file, 3, 4)
    if found.labels is None:
        assert found.status in ("missing", "malformed") and found.reason is not None
        assert_one_line(found.reason)
        return
    assert found.labels.shape == (3,) and 0 <= found.labels.min() <= found.labels.max() < 4
    if found.scores is not None:
        assert found.scores.shape == (3, 4)
        assert found.labels.tolist() == found.scores.argmax(1).tolist()


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), min_size=3, max_size=3))
def test_the_prediction_is_the_same_for_probabilities_and_for_labels(scores: list[list[float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"task_{number}.predict" for number in (1, 2)]
        np.savetxt(files[0], scores)
        first = read_prediction(files[0], 3, 4)
        assert first.labels is not None
        np.savetxt(files[1], first.labels)
        second = read_prediction(files[1], 3, 4)
    assert second.labels is not None and second.labels.tolist() == first.labels.tolist()


ANY_FILE = objects(
    "format", "classes", "tasks", "episodes", "members", "trials", "served", "stage", "datasets", "failures",
    "machine", "set_aside", "stages", "notes", "time_budget_s", "options", "submission",
) | st.lists(objects("stage", "predicted_s", "actual_s", "note"), max_size=3) | JSON_VALUES  # fmt: skip


@pytest.mark.medium
@given(ANY_FILE.map(as_json) | st.binary(max_size=100))
@example(b"[" * 100_000)
@example(b'{"a": ' * 5000)
@example(b"a: 2001-99-99")
@example(b"? [1, 2]\n: 3")
@example(b"&a [*a]")
@example(b"Meta-test time: !!bool x")
@example(b"!!timestamp x")
def test_what_a_submission_wrote_is_read_or_passed_over_with_a_note(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("metadata_ingestion", "ingestion.json", "memory.json", "stages.json"):
            (folder / file).write_bytes(data)
        (folder / "model").mkdir()
        for file in ("choices.json", "stages.json"):
            (folder / "model" / file).write_bytes(data)
        read_run_info(folder)
        for parse in (parse_choices, parse_samples, parse_stages):
            value, notes = read_optional(folder / "stages.json", 10**6, parse)
            assert (value is None) == bool(notes)
            for note in notes:
                assert_one_line(note)
        try:
            parse_truth(data, folder / "truth.json")
        except TruthError as error:
            assert_one_line(error)
