"""Runs on real clusters of one to three machines, all of them on this one: rows as from here, and what is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import made_up, one_by_one, opened
from real_ray import ROOM, add, one_machine, ray
from test_judging_cluster import made_units, play

import autometa
from autometa.core.errors import ConfigError
from autometa.executors.ray_cluster import Needs, connect
from autometa.judging.cluster import Cluster
from autometa.judging.guest import Job, Played
from autometa.judging.judge import judge
from autometa.judging.ledger import Row
from autometa.judging.options import JudgeOptions
from autometa.judging.submissions import Unit

pytestmark = [pytest.mark.medium, pytest.mark.xdist_group("ray")]
ROOT = Path(autometa.__file__).parents[1]


@pytest.fixture
def machines() -> Iterator[Any]:
    """A cluster with one machine, to which others can be added."""
    with one_machine(__name__, "test_judging_cluster", "made_up_runs") as made:
        yield made


@pytest.fixture
def joined(machines: Any, tmp_path: Path) -> Callable[..., tuple[Cluster, list[str]]]:
    """`joined(play)`: the executor on this cluster, and what it tells."""

    def join(own: Any = play) -> tuple[Cluster, list[str]]:
        told: list[str] = []
        job = Job("token", tmp_path, "", JudgeOptions(), ROOM // 2, 1, 10)
        return Cluster(
            connect(machines.address), job, Needs(1, ROOM // 2), tmp_path / "out", told.append, play=own
        ), told

    return join


def once_then_dies(job: Job, unit: Unit, bundle: bytes, dataset: bytes | None) -> Played:
    """Its process ends at the first try; the second one finds the mark of the first."""
    mark = Path(job.dataset) / f"began-{unit.seed}"
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return play(job, unit, bundle, dataset)


def waits(job: Job, unit: Unit, bundle: bytes, dataset: bytes | None) -> Played:
    """Marks where it runs, and waits for a word to go on."""
    (Path(job.dataset) / f"on-{unit.seed}-{ray.get_runtime_context().get_node_id()}").touch()
    while not (Path(job.dataset) / "go").exists():
        time.sleep(0.05)
    return play(job, unit, bundle, dataset)


def rows_here(units: list[Unit]) -> dict[Any, Row]:
    return {unit.key: made_up(unit) for unit in units}


def wait_until(known: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := known()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found
    return found


def test_rows_are_those_of_one_run_after_the_other(machines: Any, joined: Any, tmp_path: Path) -> None:
    add(machines)
    units = made_units(tmp_path, "good", "bad", seeds=(0, 1, 2))
    here, there = opened(tmp_path / "here.jsonl"), opened(tmp_path / "there.jsonl")
    judge(units, here, one_by_one(made_up), lambda _: None)
    executor, told = joined()
    assert executor.capacity() == 2
    judge(units, there, executor, lambda _: None)
    assert there.rows() == here.rows() == rows_here(units)
    assert (tmp_path / "out" / "runs" / "good" / "0" / "bundle").exists() and not told


def test_a_process_that_dies_costs_its_run_a_second_try(machines: Any, joined: Any, tmp_path: Path) -> None:
    units = made_units(tmp_path, "good", seeds=(0, 1))
    ledger = opened(tmp_path / "runs.jsonl")
    executor, told = joined(once_then_dies)
    judge(units, ledger, executor, lambda _: None)
    assert ledger.rows() == rows_here(units)
    assert len(told) == 2 and all(line.endswith("begins again") for line in told)


def test_a_machine_that_is_killed_costs_its_run_and_one_that_joins_takes_it(
    machines: Any, joined: Any, tmp_path: Path
) -> None:
    victim = add(machines)
    units = made_units(tmp_path, "good", seeds=(0, 1, 2))
    ledger = opened(tmp_path / "runs.jsonl")
    executor, told = joined(waits)
    other = threading.Thread(target=judge, args=(units, ledger, executor, lambda _: None), daemon=True)
    other.start()
    wait_until(lambda: list(tmp_path.glob(f"on-*-{victim.node_id}")))
    machines.remove_node(victim, allow_graceful=False)
    newcomer = add(machines)
    wait_until(lambda: list(tmp_path.glob(f"on-*-{newcomer.node_id}")), 120)
    (tmp_path / "go").touch()
    other.join(120)
    assert ledger.rows() == rows_here(units)
    assert len(told) == 1 and "its machine or process was lost" in told[0]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:x", "ray://127.0.0.1:10001"])
def test_an_address_without_a_cluster_is_one_line(address: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--ray {address}: no cluster can be used there .*ray start"):
        connect(address)


def test_real_runs_on_a_cluster_of_this_machine_answer_as_those_without(tmp_path: Path) -> None:
    """By the command: the same tasks and accuracies, and the files of each run."""
    found = []
    for name, more in (("ray", ["--ray", "local"]), ("here", [])):
        command = [
            sys.executable,
            "-m",
            "autometa",
            "judge",
            "random",
            "-o",
            str(tmp_path / name),
            "--json",
            "-q",
        ]
        command += ["--dataset", str(ROOT / "examples" / "demo" / "LETTERS"), "--time-budget", "60s"]
        command += ["--seeds", "1", "--tasks-per-dataset", "2", "--memory-budget", "1GB", *more]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name / "runs" / "random" / "93" / "scoring" / "scores.json").exists()
        assert (tmp_path / name / "runs" / "random" / "93.log").exists()
        row = json.loads((tmp_path / name / "runs.jsonl").read_text().splitlines()[1])
        found.append({key: row[key] for key in ("accuracies", "drawn", "status", "unanswered", "digest")})
    assert found[0] == found[1]
