"""What a submission can reach in each sandbox, and hostile submissions: they harm their own tasks at most."""

from __future__ import annotations

from typing import Literal

import pytest
from ingestion_runs import TASKS, Runner
from synthetic import MakeBundle

Sandbox = Literal["bubblewrap", "landlock"]


def test_a_sandbox_hides_the_data(runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox) -> None:
    labels = runner.dataset / "labels.csv"
    (runner.output.parent / "outside").mkdir()
    attempt = f"""
        for place, mode in (({str(labels)!r}, "r"), ({str(runner.output.parent / "outside" / "x")!r}, "w")):
            try:
                open(place, mode)
            except OSError:
                continue
            raise AssertionError(f"could open {{place}}")
        return self.nearest(query_set)
    """
    result = runner(make_bundle(predict=attempt), sandbox=sandbox)
    assert not result.failures
    assert runner.accuracy(1) > 0.7


@pytest.mark.parametrize("sandbox", ["bubblewrap"], indirect=True)
def test_data_within_the_bundle_is_hidden(runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox) -> None:
    look = """
        found = [str(p) for p in Path(__file__).parent.rglob("*") if "label" in p.name]
        assert not found, found
        return self.nearest(query_set)
    """
    bundle = make_bundle(predict=look)
    runner.dataset = runner.dataset.rename(bundle / "SET")
    result = runner(bundle, sandbox=sandbox)
    assert not result.failures, result.failures


def test_a_submission_that_shortens_its_images_harms_its_own_task_at_most(
    runner: Runner, make_bundle: MakeBundle, sandbox: Sandbox
) -> None:
    """It shortens every file that it holds open, by descriptor and by name, and writes to it."""
    shorten = """
        tried = 0
        for n in map(int, os.listdir("/proc/self/fd")):
            place = f"/proc/self/fd/{n}"
            if n < 3 or not os.path.exists(place) or "memfd" not in os.readlink(place): continue
            tried += 1
            for attack in (lambda: os.ftruncate(n, 0), lambda: os.truncate(place, 0),
                           lambda: open(place, "r+b", 0).write(b"zero")):
                try: attack()
                except OSError: continue
                print("it worked")
        assert tried, "found no images"
        return self.nearest(query_set)
    """
    result = runner(make_bundle(predict=shorten), sandbox=sandbox)
    assert not result.failures
    assert "it worked" not in runner.texts("line")
    assert all(runner.accuracy(task) > 0.7 for task in range(1, TASKS + 1))
