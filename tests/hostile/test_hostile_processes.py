"""Submissions that start processes without end, leave them behind, or stop: what they start ends with them."""

from __future__ import annotations

import pytest
from hostile_runs import COUNT, Hostile

from ingestion import watch

pytestmark = pytest.mark.medium


def test_a_bomb_of_forks_costs_its_task(
    hostile: Hostile, usual: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MAX_PROCESSES", 40)
    attack = "if task_number() == 1: strays.bomb()\nreturn self.nearest(query_set)"
    hostile.run({}, {"TOP": "import strays" + COUNT, "PREDICT": attack})
    reasons = hostile.failures()
    assert list(reasons) == [1]
    assert "processes at a time, at most 40 are allowed" in reasons[1]
    assert hostile.predictions()[1:] == usual[1:]


def test_processes_that_hide_end_with_their_phase(hostile: Hostile, usual: list[list[float]]) -> None:
    """Without environment, in a chain of forks, deaf to signals, stopped: each left the family and the session."""
    leave = """
        model = Path(os.environ["METADL_MODEL_DIR"])
        strays.detach(lambda: strays.beat_without_environment(model / "beat"))
        strays.detach(lambda: strays.run_ahead(model / "chain"))
        strays.detach(strays.ignore_signals)
        strays.detach(strays.stop)
        strays.await_files(model / "beat", model / "chain")
        return MyLearner()
    """
    look = """
        if not ROWS:
            model = Path(os.environ["METADL_MODEL_DIR"])
            looks = {name: lambda n=name: strays.beats(model / n) for name in ("beat", "chain")}
            ROWS.append(reporting.attempt(looks))
        return self.nearest(query_set)
    """
    top = "import reporting\nimport strays\nROWS = []"
    hostile.run({}, {"TOP": top, "META_FIT": leave, "PREDICT": look})
    assert {name: row["got"] for name, row in hostile.rows().items()} == {"beat": "", "chain": ""}
    assert not hostile.failures()
    assert hostile.predictions() == usual


def test_a_task_that_stops_itself_ends_in_time_whatever_its_clock_says(
    hostile: Hostile, usual: list[list[float]]
) -> None:
    """It sets the clocks of its process back, ignores all signals that it may, and stops."""
    stop = """
        if task_number() == 1:
            time.monotonic = time.time = time.perf_counter = lambda: 0.0
            os.environ["METADL_DEADLINE"] = os.environ["METADL_TASK_LIMIT_S"] = "1e9"
            strays.detach(strays.ignore_signals)
            strays.stop()
        return self.nearest(query_set)
    """
    hostile.run({}, {"TOP": "import strays" + COUNT, "PREDICT": stop}, max_time_s=5)
    reasons = hostile.failures()
    assert list(reasons) == [1]
    assert "ran out of time: predict (limit 5.0 s)" in reasons[1]
    assert hostile.predictions()[1:] == usual[1:]
