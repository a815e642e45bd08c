"""Pictures: the hardest classes and sample episodes; hidden where participants may read the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring import ScoringSettings, score
from scoring.metrics import METRICS
from scoring.run_info import RunInfo
from scoring.samples import find_hardest, read_samples, show_episodes
from scoring.samples_file import parse_samples
from scoring.summary import score_tasks
from scoring.truth import read_truth

MakeRun = Callable[..., Path]
NAMES = ("oak", "elm", "ash", "cat", "dog")


@pytest.fixture
def results(make_run: MakeRun, samples_content: dict[str, Any]) -> Path:
    """All queries of `cat` are answered `dog`; of `oak` one of four is wrong."""
    wrong = "0 1\n0 1\n0 1\n0 1\n"
    return make_run(**{"samples.json": json.dumps(samples_content), "task_3.predict": wrong})


def _page(results: Path, **settings: Any) -> str:
    summary = score(ScoringSettings(results, results.parent / "scores", **settings))
    return summary.report.read_text(encoding="utf-8")


def test_the_hardest_classes_come_first(
    results: Path, samples_content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scoring.samples.LEAST_QUERIES", 2)
    truth = read_truth(results / "truth.json")
    tasks = score_tasks(results, truth, RunInfo(), METRICS)
    samples = parse_samples(json.dumps(samples_content).encode())
    hardest = find_hardest(samples, truth, tasks)
    assert [(each.name, each.hits, each.queries) for each in hardest] == [("cat", 0, 2), ("oak", 3, 4)]
    assert [(other.name, other.count) for other in hardest[0].confusions] == [("dog", 2)]
    low, high = hardest[1].interval
    np.testing.assert_allclose((low, high), (0.3006, 0.9544), atol=1e-4)  # Wilson, by hand
    assert hardest[0].interval[0] == 0


def test_an_episode_shows_answers_with_their_probabilities(
    results: Path, samples_content: dict[str, Any]
) -> None:
    truth = read_truth(results / "truth.json")
    samples = parse_samples(json.dumps(samples_content).encode())
    (episode,) = show_episodes(samples, truth, results)
    assert [name for name, _ in episode.support] == ["oak", "elm"]
    first, second = episode.answers
    assert (first.truth, first.predicted, first.probability, first.is_right) == ("oak", "elm", 0.6, False)
    assert (second.truth, second.predicted, second.is_right) == ("elm", "elm", True)


def test_no_answer_and_labels_have_no_probability(make_run: MakeRun, samples_content: dict[str, Any]) -> None:
    samples = parse_samples(json.dumps(samples_content).encode())
    for place, content in enumerate((None, "0\n1\n0\n1\n", "5 9\n-1 3\n2 1\n0 1\n")):
        folder = make_run(f"run{place}", **{"task_1.predict": content})
        (episode,) = show_episodes(samples, read_truth(folder / "truth.json"), folder)
        assert all(answer.probability is None for answer in episode.answers)
        assert (episode.answers[0].predicted is None) == (content is None)


@pytest.mark.medium
def test_the_page_shows_pictures(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoring.samples.LEAST_QUERIES", 2)
    page = _page(results)
    assert "Hardest classes" in page and "Sample episodes" in page
    assert page.count('src="data:image/jpeg;base64,') == 8


@pytest.mark.medium
@pytest.mark.parametrize("hiding", ["hide_samples", "private_information"])
def test_pictures_and_classes_can_be_hidden(
    make_run: MakeRun, samples_content: dict[str, Any], hiding: str
) -> None:
    info = {"set_aside": ["B2: class `dog` has 3 images"]}
    files = {"samples.json": json.dumps(samples_content), "ingestion.json": json.dumps(info)}
    results = make_run(**files)
    page = _page(results, **{hiding: True})
    assert "data:image" not in page and "Sample episodes" not in page
    assert "1 entries, not shown" in page
    for file in (results.parent / "scores").glob("*.*"):
        assert not any(f"{name}" in file.read_text().split() for name in NAMES), file.name
    assert ("B10" in page) == (hiding == "hide_samples")


@pytest.mark.medium
@pytest.mark.parametrize(
    "change",
    [
        {"format": "autometa-samples-2"},
        {"tasks": [[0, 5]]},
        {"tasks": [[0, -1]]},
        {"classes": [{"dataset": "B2", "name": "cat", "pictures": ["<svg onload=alert(1)>"]}]},
        {"classes": [{"dataset": "B2", "name": "cat", "pictures": ["PHN2Zz4="]}]},
        {"classes": [{"dataset": "B2", "name": "x" * 501, "pictures": []}]},
    ],
)
def test_a_malformed_file_is_ignored_with_a_note(
    make_run: MakeRun, samples_content: dict[str, Any], change: dict[str, Any]
) -> None:
    results = make_run(**{"samples.json": json.dumps(samples_content | change)})
    samples, (note,) = read_samples(results)
    assert samples is None and note.startswith("samples.json is malformed: ignored (")
    assert "Hardest classes" not in _page(results)


@pytest.mark.medium
def test_samples_of_other_tasks_are_left_out(make_run: MakeRun, samples_content: dict[str, Any]) -> None:
    samples_content |= {"tasks": [[0, 1, 2], [0], []]}
    samples_content["episodes"][0]["task"] = 9
    page = _page(make_run(**{"samples.json": json.dumps(samples_content)}))
    assert "Hardest classes" not in page and "Sample episodes" not in page


@pytest.mark.medium
def test_names_of_classes_are_text(make_run: MakeRun, samples_content: dict[str, Any]) -> None:
    for each in samples_content["classes"]:
        each["name"] = '"><script>alert(1)</script>'
    page = _page(make_run(**{"samples.json": json.dumps(samples_content)}))
    assert "Sample episodes" in page and "<script>alert" not in page
