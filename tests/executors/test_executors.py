"""Executors: one protocol for this thread, others, and a cluster whose machines are made up here."""

from __future__ import annotations

import re
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_up_ray import GB, LARGE, LOST, SMALL, MadeUpRay

from autometa.backbones import BackboneSpec
from autometa.backbones.embedders import EmbedOnCluster, join_cluster, needs_of_parts
from autometa.backbones.embedding_parts import Embedded, Part, Pass
from autometa.classifier.options import FitOptions
from autometa.cli.main import cli
from autometa.core.errors import ConfigError
from autometa.core.options import RunOptions
from autometa.executors import ray_cluster
from autometa.executors.executor import Executor, Sequential, Threads
from autometa.executors.ray_cluster import TRIES, Needs

OWN = Pass(BackboneSpec("tiny", "test_resnet", 0.5, 64, "none"), "digest", 32, False, "eager", "cpu")
IMAGES = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)


def part(number: int, *, held: bool = True) -> Part:
    return Part(number, OWN, np.arange(5 * number, 5 * number + 5), 5, held)


def embed(own: Part, state: Any, images: np.ndarray, threads: int) -> Embedded:
    """Features that tell which images they are of, and in how many threads they were made."""
    rows = images[own.rows] if own.held else images
    return Embedded(own.number, np.stack([rows.ravel(), [threads] * len(rows)], 1).astype(np.float32))


def expected(number: int, threads: int = 2) -> list[list[float]]:
    return [[float(row), float(threads)] for row in range(5 * number, 5 * number + 5)]


def started(*nodes: dict[str, Any]) -> tuple[EmbedOnCluster, MadeUpRay, list[str]]:
    ray, told = MadeUpRay(*nodes), list[str]()
    cluster = EmbedOnCluster(ray, Needs(2, GB), told.append, embed)
    cluster.hold(IMAGES)
    cluster.give(OWN, lambda: {"w": np.zeros(1)}, IMAGES)
    return cluster, ray, told


def double(unit: int) -> int:
    return 2 * unit


@pytest.mark.parametrize("made", [Sequential(double), Threads(double, 2, lambda: None)])
def test_units_go_in_and_results_come_out(made: Executor[int, int]) -> None:
    for unit in range(4):
        made.submit(unit)
    assert {made.wait(60.0) for _ in range(4)} == {0, 2, 4, 6}
    with pytest.raises(LookupError):
        made.wait()
    made.submit(9)
    made.cancel()
    with pytest.raises(LookupError):
        made.wait()
    assert made.capacity() in (1, 2)
    made.close()


def test_threads_wait_no_longer_than_told_and_stop_what_runs() -> None:
    going = threading.Event()
    made: Threads[int, bool] = Threads(lambda _: going.wait(60), 1, going.set)
    for unit in range(3):
        made.submit(unit)
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        made.wait(0.01)
    made.cancel()
    assert going.is_set()
    made.close()


@pytest.mark.parametrize("held", [True, False])
def test_parts_come_back_whoever_has_done_them(held: bool) -> None:
    cluster, ray, told = started(LARGE, SMALL)
    for number in range(4):
        cluster.submit(part(number, held=held))
    assert not cluster.knows(OWN)
    found = {came.number: came.features for came in (cluster.wait() for _ in range(4))}
    assert {number: rows.tolist() for number, rows in found.items() if rows is not None} == {
        number: expected(number) for number in range(4)
    }
    assert cluster.knows(OWN) and not told
    assert ray.most == cluster.capacity() + 1 == 4
    assert len(ray.stored) == 2  # the images that are held, and the weights, once
    assert ray.asked[0] == {
        "num_cpus": 2, "memory": GB, "num_gpus": 0.0, "max_retries": 0, "name": str(part(0, held=held))
    }  # fmt: skip
    cluster.close()
    assert ray.ended


def test_a_part_that_is_lost_begins_again_once_and_is_then_a_result() -> None:
    cluster, ray, told = started(LARGE)
    ray.lose = {str(part(0)): 1, str(part(1)): TRIES}
    ray.raises = {str(part(2)): OSError(28, "No space left on device")}
    for number in range(3):
        cluster.submit(part(number))
    found = {came.number: came for came in (cluster.wait() for _ in range(3))}
    assert found[0].features is not None and found[0].features.tolist() == expected(0)
    assert found[1].features is None and found[1].reason == "its machine or process was lost (Lost), 2 times"
    assert found[2].features is None and "No space left on device" in found[2].reason
    assert sorted(told) == [
        f"{part(number)}: its machine or process was lost (Lost); begins again" for number in (0, 1)
    ]


def test_a_cluster_is_waited_for_no_longer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, ray, _ = started(LARGE)
    times = iter(np.arange(0.0, 30.0, 0.5))
    cluster.clock = lambda: float(next(times))
    ray.stuck = True
    for number in range(4):
        cluster.submit(part(number))
    with pytest.raises(TimeoutError, match=r"within 2\.0 s"):
        cluster.wait(2.0)
    assert next(times) <= 6.0
    cluster.cancel()
    assert len(ray.cancelled) == 3  # two fit, and one waits
    ray.stuck = False
    cluster.submit(part(3))
    assert cluster.wait(2.0).number == 3


def test_without_a_machine_nothing_is_sent_until_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "POLL_S", 0.0)
    cluster, ray, _ = started(LOST)
    cluster.submit(part(0))
    assert cluster.capacity() == 0
    with pytest.raises(TimeoutError):
        cluster.wait(0.0)
    ray.machines.append(SMALL)
    assert cluster.capacity() == 1 and cluster.wait(1.0).number == 0


def test_few_networks_are_kept_in_the_store_of_objects() -> None:
    cluster, ray, _ = started(LARGE)
    owns = [replace(OWN, digest=f"digest {number}") for number in range(4)]
    for own in owns:
        cluster.give(own, lambda: {"w": np.zeros(1)}, IMAGES)
        cluster.submit(replace(part(0), own=own))
        cluster.wait()
    assert [cluster.knows(own) for own in owns] == [False, True, True, True]
    put = len(ray.stored)
    cluster.give(owns[-1], lambda: {"w": np.zeros(1)}, IMAGES)
    assert len(ray.stored) == put


def test_a_full_store_is_one_line_and_a_head_that_is_gone_has_no_room() -> None:
    cluster, ray, _ = started(LARGE)
    ray.full = True
    with pytest.raises(ConfigError, match=r"^--ray: .*the store is full.*--object-store-memory"):
        cluster.hold(IMAGES)
    ray.headless = True
    assert cluster.capacity() == 0


def test_each_process_gets_an_equal_share_of_the_smallest_machine() -> None:
    none = {**LARGE, "Resources": {"CPU": 0.0, "memory": 8.0 * GB}}  # a head that does no work
    many = {**LARGE, "Resources": {"CPU": 16.0, "memory": 32.0 * GB, "GPU": 2.0}}
    assert needs_of_parts(MadeUpRay(LARGE, SMALL, LOST, none), "cpu") == Needs(2, 4 * GB)
    assert needs_of_parts(MadeUpRay(many), "cpu") == Needs(4, 8 * GB)
    assert needs_of_parts(MadeUpRay(many), "cuda") == Needs(8, 16 * GB, 1.0)


@pytest.mark.parametrize(
    ("nodes", "device", "said"),
    [
        ([LOST], "cpu", r"each machine needs a processor, 1 GB of memory; the least are 0 processors"),
        ([{**SMALL, "Resources": {"CPU": 2.0, "memory": 0.5 * GB}}], "cpu", r"2 processors, 0\.5 GB"),
        ([SMALL], "cuda", "and a GPU; the least are .* and 0 GPUs"),
    ],
)
def test_too_little_room_is_said(nodes: list[dict[str, Any]], device: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        needs_of_parts(MadeUpRay(*nodes), device)


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--ray: .*pip install 'autometa\[distributed\]'"):
        join_cluster("local", "cpu", print)


def test_a_cluster_is_left_where_it_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = MadeUpRay(LOST)
    monkeypatch.setattr("autometa.backbones.embedders.connect", lambda _: ray)
    with pytest.raises(ConfigError):
        join_cluster("local", "cpu", print)
    assert ray.ended


def test_fit_takes_a_cluster_and_a_run_does_not(tmp_path: Path) -> None:
    assert FitOptions(output=tmp_path, ray="local").ray == "local" and FitOptions(output=tmp_path).ray is None
    assert "ray" not in RunOptions.model_fields
    refused = CliRunner().invoke(cli, ["run", "--ray", "local"])
    assert refused.exit_code == 2 and re.search(r"No such option:? '?--ray\b", refused.output)
