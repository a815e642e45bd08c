"""Images embedded on real clusters of one to three machines, all of them on this one: features as from here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from other_embedders import Willing
from real_ray import PLACE, ROOM, add, one_machine, place, ray
from synthetic import colour_pool

import autometa
from autometa.backbones import View
from autometa.backbones.embedders import EmbedOnCluster, join_cluster
from autometa.backbones.embedding_parts import Embedded, Part, embed_part
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import MemoryBudget, TimeBudget
from autometa.core.errors import BudgetExhausted, ConfigError
from autometa.executors.ray_cluster import Needs, connect

__all__ = ["place"]
pytestmark = [pytest.mark.medium, pytest.mark.xdist_group("ray"), pytest.mark.usefixtures("eager_only")]
ROOT = Path(autometa.__file__).parents[1]
MEMORY = MemoryBudget(8 * 2**30)
POOL = colour_pool(classes=12, per_class=60)
KEYS = list(range(len(POOL.images)))


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch, place: Path) -> Iterator[Any]:
    """A cluster whose processes are as urgent as that of the test."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    with one_machine(__name__) as made:
        yield made


def joined(machines: Any, embed: Callable[..., Embedded] = embed_part) -> tuple[FeatureStore, list[str]]:
    """A store whose images are embedded on this cluster, and what it tells."""
    lines: list[str] = []
    workers = EmbedOnCluster(connect(machines.address), Needs(1, ROOM // 2), lines.append, embed)
    spread = Willing(workers, lines.append)
    spread.hold(POOL.images)
    return FeatureStore(BackboneShelf("cpu"), MEMORY, spread=spread), lines


def here(view: View) -> torch.Tensor:
    return FeatureStore(BackboneShelf("cpu"), MEMORY).embed(view, POOL.images, KEYS)


def careful(own: Part, state: Any, images: np.ndarray, threads: int) -> Embedded:
    """Only where nothing can be written, warns, or has other threads than it got."""
    assert not images.flags.writeable and not any(one.flags.writeable for one in state.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = embed_part(own, state, images, threads)
    assert os.environ["OMP_NUM_THREADS"] == "1" and torch.get_num_threads() == 1
    return done


def once_then_dies(own: Part, state: Any, images: np.ndarray, threads: int) -> Embedded:
    """Its process ends at the first try of the first part; the second one finds the mark of the first."""
    mark = Path(os.environ[PLACE]) / "began"
    if own.number == 0 and not mark.exists():
        mark.touch()
        os._exit(1)
    return embed_part(own, state, images, threads)


def waits(own: Part, state: Any, images: np.ndarray, threads: int) -> Embedded:
    """Marks where it runs, and waits for a word to go on."""
    place = Path(os.environ[PLACE])
    (place / f"on-{own.number}-{ray.get_runtime_context().get_node_id()}").touch()
    while not (place / "go").exists():
        time.sleep(0.05)
    return embed_part(own, state, images, threads)


def wait_until(known: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := known()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found
    return found


def test_features_are_those_from_here_and_what_is_sent_is_only_read(
    machines: Any, tiny_backbone: str
) -> None:
    add(machines)
    store, lines = joined(machines, careful)
    assert store.spread is not None and store.spread.workers.capacity() == 2
    view = View(tiny_backbone, 32)
    assert torch.equal(store.embed(view, POOL.images, KEYS), here(view)) and not lines
    assert 0 < store.spread.travel_s < store.spread.setup_s
    turned = np.ascontiguousarray(POOL.images[::-1])  # which no machine holds
    keys = [f"turned {key}" for key in KEYS]
    assert torch.equal(store.embed(view, turned, keys), here(view).flip(0)) and not lines


def test_a_process_that_dies_costs_its_part_a_second_try(
    machines: Any, tiny_backbone: str, place: Path
) -> None:
    store, lines = joined(machines, once_then_dies)
    view = View(tiny_backbone, 32)
    assert torch.equal(store.embed(view, POOL.images, KEYS), here(view))
    assert len(lines) == 1 and lines[0].endswith("begins again")


def test_a_machine_that_is_killed_costs_its_parts_and_one_that_joins_takes_them(
    machines: Any, tiny_backbone: str, place: Path
) -> None:
    victim = add(machines)
    store, lines = joined(machines, waits)
    view, found = View(tiny_backbone, 32), list[torch.Tensor]()
    other = threading.Thread(target=lambda: found.append(store.embed(view, POOL.images, KEYS)), daemon=True)
    other.start()
    wait_until(lambda: list(place.glob(f"on-*-{victim.node_id}")))
    machines.remove_node(victim, allow_graceful=False)
    newcomer = add(machines)
    wait_until(lambda: list(place.glob(f"on-*-{newcomer.node_id}")))
    (place / "go").touch()
    other.join(120)
    assert torch.equal(found[0], here(view))
    assert lines and all("its machine or process was lost" in line for line in lines)


def test_the_deadline_holds_and_stragglers_are_ended(machines: Any, tiny_backbone: str, place: Path) -> None:
    store, _ = joined(machines, waits)
    view, began = View(tiny_backbone, 32), time.monotonic()
    assert store.spread is not None
    with pytest.raises(BudgetExhausted, match="no time is left"):
        store.embed(view, POOL.images, KEYS, TimeBudget.of(15.0))
    assert time.monotonic() - began < 15.5 and 0 < store.embedded(view) < len(KEYS)
    (place / "go").touch()
    assert torch.equal(store.embed(view, POOL.images, KEYS, TimeBudget.of(300.0)), here(view))


def test_a_machine_with_another_version_is_done_without(machines: Any, tiny_backbone: str) -> None:
    store, lines = joined(machines, other_version)
    view = View(tiny_backbone, 32)
    assert torch.equal(store.embed(view, POOL.images, KEYS), here(view))
    assert len(lines) == 1 and "is embedded here: torch 0.4.1 is there" in lines[0]


def other_version(own: Part, state: Any, images: np.ndarray, threads: int) -> Embedded:
    return Embedded(own.number, reason=f"torch 0.4.1 is there, {own.versions[1][1]} here")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:x"])
def test_an_address_without_a_cluster_is_one_line(address: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--ray {address}: no cluster can be used there .*ray start"):
        join_cluster(address, "cpu", print)


def test_a_search_that_is_killed_leaves_the_cluster_and_goes_on(machines: Any, place: Path) -> None:
    """The journal and the learner are those of the search alone; the machines are free for the next one."""
    program = [
        sys.executable,
        str(Path(__file__).with_name("spread_search.py")),
        machines.address,
        str(place),
    ]
    first = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    journal = place / "journal.jsonl"
    wait_until(lambda: journal.exists() and '"kind": "turned"' in journal.read_text())
    first.send_signal(signal.SIGKILL)
    first.communicate()
    bought = journal.read_text()
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (
        "purchases of earlier runs are known" in done.stdout
        and "parts from the cluster: 0" not in done.stdout
    )
    assert journal.read_text().startswith(bought.rpartition("\n")[0])
    assert (place / "learner.json").exists()
