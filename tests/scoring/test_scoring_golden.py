"""Every number of the original program on its own draws, through files and back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring import ScoringSettings, score
from scoring.metrics import METRICS

GOLDEN = Path(__file__).parents[1] / "golden" / "cdmetadl_seed93.json"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(GOLDEN.read_text())
    return content


@pytest.fixture(scope="module")
def details(golden: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    results = tmp_path_factory.mktemp("golden")
    random = np.random.RandomState(golden["seed"])
    rows = []
    for number, task in enumerate(golden["test_tasks"], start=1):
        labels = np.array(task["query_labels"])
        scores = random.rand(len(labels), task["ways"])
        scores[np.arange(len(labels)), labels] += 0.6 * random.rand(len(labels))
        scores /= scores.sum(axis=1, keepdims=True)
        np.savetxt(results / f"task_{number}.predict", np.round(scores, 6), fmt="%f")
        rows.append({key: task[key] for key in ("dataset", "ways", "shots")})
        rows[-1] |= {"task": number, "labels": task["query_labels"]}
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    truth = {"format": "autometa-truth-1", "seed": golden["seed"], "datasets": names, "tasks": rows}
    (results / "truth.json").write_text(json.dumps(truth))
    score(ScoringSettings(results_dir=results, output_dir_scoring=results / "scores"))
    content: dict[str, Any] = json.loads((results / "scores" / "details.json").read_text())
    return content


@pytest.mark.medium
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_every_task_scores_as_in_the_original(
    golden: dict[str, Any], details: dict[str, Any], metric: Any
) -> None:
    expected = [row[metric.title] for row in golden["score_check"]["per_task"]]
    scored = [row["metrics"][metric.key] for row in details["tasks"]]
    assert scored == pytest.approx(expected, abs=1e-9)


@pytest.mark.medium
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_means_and_intervals_are_those_of_the_original(
    golden: dict[str, Any], details: dict[str, Any], metric: Any
) -> None:
    estimate = details["overall"]["metrics"][metric.key]
    expected = golden["score_check"]["mean_and_ci95"][metric.title]
    assert [estimate["mean"], estimate["ci95"]] == pytest.approx(expected, abs=1e-9)
    assert estimate["n"] == len(golden["test_tasks"])
