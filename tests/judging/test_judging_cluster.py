"""Runs on a cluster, whose machines are made up here: what is sent, what is lost, what begins again."""

from __future__ import annotations

import fcntl
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_ray import GB, LARGE, LOST, SMALL, MadeUpRay
from made_up_runs import made_up, opened, units

from autometa.core.errors import ConfigError
from autometa.core.fingerprints import fingerprint
from autometa.executors import ray_cluster
from autometa.executors.ray_cluster import TRIES, Needs, load_ray
from autometa.judging.cluster import NO_MACHINE_S, Cluster, needs_of_runs
from autometa.judging.guest import Job, Played, locked, play_as_guest
from autometa.judging.judge import judge
from autometa.judging.options import JudgeOptions
from autometa.judging.submissions import Submission, Unit
from autometa.judging.travel import pack, unpack

DATASET = Path("photos")


def play(_job: Job, unit: Unit, bundle: bytes, _dataset: bytes | None) -> Played:
    """A made-up run whose only file tells the size of the bundle that it was sent."""
    row = made_up(unit)
    return Played("here", row, pack_text(f"{unit.seed}/bundle", str(len(bundle))))


def pack_text(name: str, text: str) -> bytes:
    """A packed folder with one file."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr(name, text)
    return whole.getvalue()


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., tuple[Cluster, MadeUpRay, list[str]]]:
    """`started(*nodes)`: a cluster of these machines."""

    def start(*nodes: dict[str, Any], **own: Any) -> tuple[Cluster, MadeUpRay, list[str]]:
        ray, told = MadeUpRay(*nodes), list[str]()
        job = Job("token", tmp_path / DATASET, "", JudgeOptions(), GB, 2, 10)
        given = {"play": play, **own}
        return Cluster(ray, job, Needs(2, GB), tmp_path / "out", told.append, **given), ray, told

    return start


def made_units(folder: Path, *names: str, seeds: tuple[int, ...] = (0, 1)) -> list[Unit]:
    """Units whose bundles are folders with a file."""
    found = []
    for seed in seeds:
        for name in names:
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "model.py").write_text("pass")
            found.append(Unit(Submission(name, folder / name, f"digest of {name}"), seed))
    return found


def test_rows_are_those_of_runs_here_and_files_come_back(started: Any, tmp_path: Path) -> None:
    cluster, ray, told = started(LARGE, SMALL)
    todo = made_units(tmp_path, "good", "bad", seeds=(0, 1, 2))
    ledger = opened(tmp_path / "runs.jsonl")
    assert judge(todo, ledger, cluster, told.append) == 6
    assert ledger.rows() == {unit.key: made_up(unit) for unit in reversed(todo)}
    for unit in todo:
        sent = pack(unit.submission.path)
        kept = tmp_path / "out" / "runs" / unit.submission.name / str(unit.seed) / "bundle"
        assert kept.read_text() == str(len(sent))
    assert len(ray.stored) == 2  # each bundle once
    assert ray.most == 4  # three fit, and one waits
    assert ray.cleaned == ["a", "b"] and ray.ended


def test_ray_repeats_nothing_and_gives_what_a_run_needs(started: Any, tmp_path: Path) -> None:
    cluster, ray, _ = started(LARGE)
    cluster.submit(made_units(tmp_path, "good", seeds=(3,))[0])
    cluster.wait()
    assert ray.asked == [
        {"num_cpus": 2, "memory": GB, "num_gpus": 0.0, "max_retries": 0, "name": "good, seed 3"}
    ]
    assert Needs(2, GB, label=("kind", "large")).options()["label_selector"] == {"kind": "large"}


def test_what_is_lost_begins_again_once(started: Any, tmp_path: Path) -> None:
    cluster, ray, told = started(LARGE)
    good, bad = made_units(tmp_path, "good", "bad", seeds=(0,))
    ray.lose = {str(good): 1, str(bad): TRIES}
    for unit in (good, bad):
        cluster.submit(unit)
    rows = {row.submission: row for row in (cluster.wait(), cluster.wait())}
    assert rows["good"] == made_up(good)
    assert (rows["bad"].status, rows["bad"].reason) == (
        "failed",
        "its machine or process was lost (Lost), 2 times",
    )
    assert sorted(told) == [
        f"{bad}: its machine or process was lost (Lost); begins again",
        f"{good}: its machine or process was lost (Lost); begins again",
    ]
    with pytest.raises(LookupError):
        cluster.wait()


def test_a_run_that_could_not_be_done_is_a_failed_row(started: Any, tmp_path: Path) -> None:
    cluster, ray, _ = started(LARGE)
    (unit,) = made_units(tmp_path, "good", seeds=(0,))
    ray.raises = {str(unit): OSError(28, "No space left on device")}
    cluster.submit(unit)
    row = cluster.wait()
    assert row is not None and row.status == "failed" and "No space left on device" in row.reason


def test_another_version_ends_the_judging_and_keeps_what_was_done(started: Any, tmp_path: Path) -> None:
    cluster, ray, told = started(LARGE)
    first, second = made_units(tmp_path, "good", seeds=(0, 1))
    ray.raises = {str(first): ConfigError("machine m: has autometa 0.1.0")}
    ledger = opened(tmp_path / "runs.jsonl")
    with pytest.raises(ConfigError, match=r"has autometa 0\.1\.0"):
        judge([first, second], ledger, cluster, told.append)
    assert list(ledger.rows()) == [second.key] and ray.ended


def test_a_machine_that_comes_gets_runs_and_one_that_goes_none(started: Any, tmp_path: Path) -> None:
    cluster, ray, _ = started(SMALL)
    assert cluster.capacity() == 1
    ray.machines.append(LARGE)
    assert cluster.capacity() == 3
    ray.machines[:] = [LOST, SMALL]
    assert cluster.capacity() == 1


def test_where_no_machine_is_left_it_waits_and_then_ends(
    started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "POLL_S", 0.0)
    times = iter([0.0, 1.0, NO_MACHINE_S / 2, NO_MACHINE_S + 1])
    cluster, _, told = started(LOST, clock=lambda: next(times))
    cluster.submit(made_units(tmp_path, "good", seeds=(0,))[0])
    with pytest.raises(ConfigError, match=r"no machine is left.*--resume"):
        cluster.wait()
    assert told == ["no machine is left in the cluster; waits up to 600 s for one"]


def test_a_machine_that_lacks_the_dataset_gets_it(started: Any, tmp_path: Path) -> None:
    def lacks(job: Job, unit: Unit, bundle: bytes, dataset: bytes | None) -> Played:
        return play(job, unit, bundle, None) if dataset else Played("far", lacks_dataset=True)

    (tmp_path / DATASET).mkdir()
    (tmp_path / DATASET / "labels.csv").write_text("FILE_NAME,CATEGORY\n")
    cluster, ray, told = started(LARGE, play=lacks)
    todo = made_units(tmp_path, "good", seeds=(0, 1, 2))
    for unit in todo:
        cluster.submit(unit)
    assert {cluster.wait(), cluster.wait(), cluster.wait()} == {made_up(unit) for unit in todo}
    assert told == ["far: gets the dataset, which it does not have"]
    assert pack(tmp_path / DATASET) in ray.stored


def test_what_goes_on_is_ended_at_the_end(started: Any, tmp_path: Path) -> None:
    cluster, ray, _ = started(LARGE)
    for unit in made_units(tmp_path, "good", seeds=(0, 1, 2, 3)):
        cluster.submit(unit)
    cluster.wait()
    cluster.close()
    assert len(ray.cancelled) == 2 and ray.ended


@pytest.mark.parametrize(
    ("needs", "slots"),
    [
        (Needs(2, GB), 2),
        (Needs(1, 3 * GB), 2),
        (Needs(1, GB, gpus=1), 0),
        (Needs(1, GB, label=("kind", "large")), 4),
        (Needs(1, GB, label=("kind", "small")), 0),
    ],
)
def test_a_machine_has_room_for_so_many(needs: Needs, slots: int) -> None:
    assert needs.slots_of(LARGE) == slots
    assert needs.slots_of(LOST) == 0


def test_all_runs_get_an_equal_share_of_the_smallest_machine() -> None:
    ray = MadeUpRay(LARGE, SMALL, LOST)
    assert needs_of_runs(ray, 2, None, None) == Needs(1, 2 * GB)
    assert needs_of_runs(ray, 1, GB, ("kind", "large")) == Needs(4, GB, label=("kind", "large"))
    with_gpu = {**LARGE, "Resources": {**LARGE["Resources"], "GPU": 1.0}}
    assert needs_of_runs(MadeUpRay(with_gpu), 2, None, None).gpus == 0.5


@pytest.mark.parametrize(
    ("jobs", "memory", "label", "said"),
    [
        (3, None, None, "room for 3 runs.*give a smaller --jobs"),
        (1, 5 * GB, ("kind", "small"), "no machine with label kind=small"),
        (1, 9 * GB, None, r"room for 1 runs with 9\.0 GB"),
    ],
)
def test_too_little_room_is_said(jobs: int, memory: int | None, label: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        needs_of_runs(MadeUpRay(LARGE, SMALL), jobs, memory, label)


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--ray: .*pip install 'autometa\[distributed\]'"):
        load_ray()


def test_another_version_on_a_machine_is_refused(tmp_path: Path) -> None:
    job = Job("token", DATASET, "", JudgeOptions(), GB, 1, 10, version="0.0.1")
    with pytest.raises(ConfigError, match=r"has autometa .*, the judge has 0\.0\.1"):
        play_as_guest(job, units("good")[0], b"", None)


def test_a_folder_is_known_by_names_and_sizes_and_arrives_whole(tmp_path: Path) -> None:
    (tmp_path / "one" / "images").mkdir(parents=True)
    (tmp_path / "one" / "images" / "ä.png").write_bytes(b"123")
    (tmp_path / "one" / "labels.csv").write_text("a")
    unpack(pack(tmp_path / "one"), tmp_path / "two")
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two") != ""
    assert (tmp_path / "two" / "images" / "ä.png").read_bytes() == b"123"
    (tmp_path / "two" / "labels.csv").write_text("ab")
    assert fingerprint(tmp_path / "one") != fingerprint(tmp_path / "two")
    assert fingerprint(tmp_path / "three") == ""


def test_a_lock_is_of_one_at_a_time(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with locked(place), (place / "lock").open("w") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with locked(tmp_path / "place"):
        pass


@pytest.mark.parametrize(
    ("label", "ray", "said"),
    [("large", "local", "KEY=VALUE"), ("kind=", "local", "KEY=VALUE"), ("kind=large", None, "add ray")],
)
def test_a_label_is_a_pair_and_of_a_cluster(label: str, ray: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        JudgeOptions(ray=ray, ray_label=label)
    assert JudgeOptions(ray="local", ray_label="kind=large").label == ("kind", "large")
    assert JudgeOptions(ray="local").label is None
