"""A submission that sends ingestion what is no answer, at every start and in tasks: one run, a test an abuse."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hostile_runs import ATTACKS, COUNT, Hostile, Sandbox

from ingestion import meta_test

pytestmark = pytest.mark.medium
STARTS = """
import sys
import frames
""" + COUNT + """
if sys.argv[1:] and not os.environ.get("METADL_TASKS_LEFT"):
    frames.abuse(task_number() - 2)  # the first import is that of meta-training
"""  # fmt: skip
TASKS = 7
ANSWERS = """
number = 8 - int(os.environ["METADL_TASKS_LEFT"])
if number == 1:
    for _ in range(1000): frames.message("loaded")
if number == 2: return np.full((len(query_set), self.ways), np.nan)
if number == 3: return np.full(len(query_set), 1e300)
if number == 4: return np.full((len(query_set), self.ways), -np.inf)
if number == 5: return np.full((len(query_set), self.ways), None)
return self.nearest(query_set)
"""
GONE, BROKEN = "exited with status 0 before it had answered", "broke the protocol"
REASONS = {
    "half a length": GONE,
    "half a frame": GONE,
    "a byte now and then, from a stray": GONE,
    "a frame without end": "sent a message of 9223372036854775808 bytes",
    "lists within lists in a field": f"{BROKEN}|\\[\\[\\[",
    "much JSON": "bytes of JSON",
    "another answer": "answered `predictions` instead of `ready`",
    "an answer with escapes": "answered `.+` instead of `ready`",
    "an error with escapes and lines": "start: .+bad == score 1.0",
    "a long traceback": "start: long",
    "fields of other types": "start: {'a': \\[1\\]}",
    "a closed channel": "closed its channel",
}
"""What is said of each abuse; of the others, that it broke the protocol."""


def abuses() -> list[str]:
    table = (ATTACKS / "frames.py").read_text().split("ABUSES: dict", 1)[1]
    return re.findall(r'^    "(.+?)": ', table, re.MULTILINE)


@pytest.fixture(scope="module")
def abused(hostile_dataset: object, tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Hostile:
    run = Hostile(hostile_dataset, tmp_path_factory.mktemp("channel"), sandbox)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meta_test, "MAX_FAILED_STARTS", len(abuses()) + 1)
        run.run({}, {"TOP": STARTS, "PREDICT": ANSWERS}, test_tasks_per_dataset=TASKS)
    return run


def told(run: Hostile) -> list[str]:
    """What was said of each start."""
    texts = [event.text for event in run.runner.events if event.kind == "failure"]
    return [text for text in texts if text.endswith("; starting again")]


def test_every_start_is_told_and_tried_again(abused: Hostile) -> None:
    assert len(told(abused)) == len(abuses())


@pytest.mark.parametrize("number", range(len(abuses())), ids=abuses())
def test_it_ends_one_start_and_the_reason_is_a_line(abused: Hostile, number: int) -> None:
    text = told(abused)[number]
    assert re.search(REASONS.get(abuses()[number], BROKEN), text), text
    assert text.isprintable()


def test_bad_answers_cost_their_tasks(abused: Hostile, usual: list[list[float]]) -> None:
    reasons = abused.failures()
    assert sorted(reasons) == [1, 2, 3, 4, 5]
    assert "answered `loaded` instead of `predictions`" in reasons[1]
    assert "NaN" in reasons[2]
    assert "outside 0.." in reasons[3]
    assert "infinite" in reasons[4]
    assert "numbers" in reasons[5]
    predictions = abused.predictions()
    assert len(predictions) == TASKS
    assert all(np.isnan(predictions[task - 1]).all() for task in reasons)
    assert abused.runner.accuracy(6) > 0.7


def test_nothing_shown_holds_an_escape(abused: Hostile) -> None:
    assert not any("\x1b" in event.text for event in abused.runner.events)
    assert b"\x1b" not in (abused.output / "submission.log").read_bytes()
