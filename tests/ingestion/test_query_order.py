"""No submission can draw the tasks again to learn the labels of queries from their places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ingestion_runs import TASKS, Runner
from synthetic import write_bundle, write_meta_album

from ingestion.albums import read_meta_album
from ingestion.query_order import QueryOrders, put_back
from ingestion.splits import Part

DRAWN_AGAIN = """
from ingestion.tasks import TaskConfig, draw_test_tasks

class Guessed:
    def __init__(self, sizes):
        self.rows_of_class = np.split(np.arange(sum(sizes)), len(sizes))

def drawn_again():
    told = (Path(os.environ["METADL_MODEL_DIR"]).parent / "logs" / "experimental_settings.txt").read_text()
    found = dict(line.split(": ", 1) for line in told.splitlines() if ": " in line)
    config = TaskConfig.model_validate_json(found["test tasks"])
    test = Guessed([CLASS_SIZE] * TEST_CLASSES)
    per_dataset = int(found["test_tasks_per_dataset"])
    return list(draw_test_tasks([test], config, per_dataset, int(found["seed"])))
"""
GUESS = """
images, labels, original, ways, shots = support_set
draws = drawn_again()
draw = draws[len(draws) - int(os.environ["METADL_TASKS_LEFT"])]
print("VERIFIED", bool((draw.support_labels == np.asarray(labels)).all()), flush=True)
predictor = MyPredictor(support_set)
predictor.guess = np.eye(int(ways))[draw.query_labels]
return predictor
"""


def orders_of(folder: Path, seed: int = 93) -> QueryOrders:
    dataset = read_meta_album(folder)
    return QueryOrders.of([Part(dataset, np.arange(len(dataset.files)))], seed)


def test_the_order_follows_from_the_data_and_the_seed(tmp_path: Path) -> None:
    one = write_meta_album(tmp_path / "SET", [6] * 4)
    first = orders_of(one)
    assert first == orders_of(one) != orders_of(one, seed=94)
    np.testing.assert_array_equal(first.of_task(1, 30), orders_of(one).of_task(1, 30))
    assert (first.of_task(1, 30) != first.of_task(2, 30)).any()
    image = next(iter(sorted((one / "images").iterdir())))
    image.write_bytes(image.read_bytes() + b"\0")
    assert orders_of(one) != first
    image.unlink()
    assert orders_of(one) != first


def test_predictions_are_put_back_into_the_order_of_the_draw() -> None:
    drawn = np.arange(12.0).reshape(6, 2)
    order = np.random.default_rng(0).permutation(6)
    np.testing.assert_array_equal(put_back(drawn[order], order), drawn)
    np.testing.assert_array_equal(put_back(np.arange(6)[order], order), np.arange(6))


@pytest.mark.medium
def test_who_draws_the_tasks_again_is_right_as_often_as_chance(tmp_path: Path) -> None:
    dataset = write_meta_album(tmp_path / "SET", [20] * 10)
    runner = Runner(dataset, tmp_path / "out")
    top = DRAWN_AGAIN.replace("CLASS_SIZE", "20").replace("TEST_CLASSES", "4")
    parts = {"TOP": top, "META_FIT": "return MyLearner()", "FIT": GUESS, "PREDICT": "return self.guess"}
    result = runner(write_bundle(tmp_path / "bundle", parts), ways=(4, 4), query_images_per_class=10)
    assert not result.failures
    log = (tmp_path / "out" / "submission.log").read_text()
    assert log.count("VERIFIED True") == TASKS, (
        log
    )  # so that the guess is the label of the query in its place
    assert np.mean([runner.accuracy(task) for task in range(1, TASKS + 1)]) < 0.45
