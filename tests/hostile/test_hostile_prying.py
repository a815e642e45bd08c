"""A submission that looks for labels, and meddles with other processes and the machine: one run, a test a row."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bystanders import SECRET, Bystanders
from hostile_runs import ATTACKS, Hostile, Sandbox
from ingestion_runs import TASKS

pytestmark = pytest.mark.medium
SECOND_ROUND = " (in meta-test)"
ATTACK = """
import meddling
import prying
import reporting
ROUNDS = []
"""
PRY = "reporting.attempt(prying.ATTACKS)\nreporting.attempt(meddling.ATTACKS)\nreturn MyLearner()"
PRY_AGAIN = f"""
if not ROUNDS:
    ROUNDS.append(reporting.attempt(prying.ATTACKS, again={SECOND_ROUND!r}))
return np.zeros(len(query_set), dtype=np.int64)
"""


def names_of(module: str) -> list[str]:
    """The attacks that the table of a module has; the module itself runs only within a submission."""
    table = (ATTACKS / f"{module}.py").read_text().split("ATTACKS: dict", 1)[1]
    return re.findall(r'^    "(.+?)": ', table, re.MULTILINE)


PRYING = [name + again for again in ("", SECOND_ROUND) for name in names_of("prying")]
SEEN_BY_TESTS = {"signal to ingestion, by F_SETOWN", "network, UDP", "keyring of the user, written"}
"""What these did, the tests see; the submission cannot tell."""
MEDDLING = [name for name in names_of("meddling") if name not in SEEN_BY_TESTS]
Pried = tuple[Hostile, Bystanders]
OPEN_UNDER_LANDLOCK = {
    "socket of another program, by path": "Landlock does not look at it",
    "shared memory of another program, read": "Landlock opens /dev/shm, unless it is asked to be strict",
    "shared memory of another program, written": "Landlock opens /dev/shm, unless it is asked to be strict",
}


@pytest.fixture(scope="module")
def pried(
    hostile_dataset: Path,
    tmp_path_factory: pytest.TempPathFactory,
    sandbox: Sandbox,
    bystanders: Callable[[], Bystanders],
) -> Pried:
    others = bystanders()
    run = Hostile(hostile_dataset, tmp_path_factory.mktemp("prying"), sandbox)
    given = others.given() | {
        "labels": str(hostile_dataset / "labels.csv"),
        "truth": str(run.output / "truth.json"),
    }
    run.run(given, {"TOP": ATTACK, "META_FIT": PRY, "PREDICT": PRY_AGAIN})
    return run, others


@pytest.fixture
def open_today(request: pytest.FixtureRequest, sandbox: Sandbox) -> Callable[[str], None]:
    """`open_today(attack)`: the test may fail where this attack is known to succeed in this sandbox."""
    known = OPEN_UNDER_LANDLOCK if sandbox == "landlock" else {}

    def expect(attack: str) -> None:
        if attack in known:
            request.applymarker(pytest.mark.xfail(strict=False, reason=known[attack]))

    return expect


@pytest.mark.parametrize("attack", PRYING)
def test_it_reads_no_label(pried: Pried, attack: str, open_today: Callable[[str], None]) -> None:
    open_today(attack)
    assert pried[0].rows()[attack]["got"] == ""


@pytest.mark.parametrize("attack", MEDDLING)
def test_it_reaches_no_other_program(pried: Pried, attack: str, open_today: Callable[[str], None]) -> None:
    open_today(attack)
    assert pried[0].rows()[attack]["got"] == ""


def test_it_scores_as_one_that_found_nothing(pried: Pried) -> None:
    """It says class 0 throughout, which is right as often as chance."""
    run, _ = pried
    assert not run.failures()
    for task in range(1, TASKS + 1):
        ways = max(run.runner.truth()["tasks"][task - 1]["labels"]) + 1
        assert np.isclose(run.runner.accuracy(task), 1 / ways)


def test_it_sends_no_signal_by_way_of_the_kernel(pried: Pried) -> None:
    assert pried[1].signals == 0


def test_it_sends_nothing_over_the_network(pried: Pried, open_today: Callable[[str], None]) -> None:
    open_today("network, UDP")
    assert pried[1].received() == b""


def test_it_leaves_shared_memory_as_it_was(pried: Pried, open_today: Callable[[str], None]) -> None:
    open_today("shared memory of another program, written")
    assert pried[1].shared.read_text() == SECRET


def test_it_writes_nothing_to_the_terminal(pried: Pried, open_today: Callable[[str], None]) -> None:
    open_today("terminal of the user")
    assert pried[1].shown() == b""


def test_it_leaves_no_key(pried: Pried, open_today: Callable[[str], None]) -> None:
    open_today("keyring of the user, written")
    assert not pried[1].has_key(pried[1].left_key)
