"""What confines a run: the strict sandbox, what is said of each, and the record."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ingestion_runs import Runner
from synthetic import MakeBundle

from ingestion import confinement, sandbox
from ingestion.confinement import describe_confinement, is_offline, isolation_trouble
from ingestion.errors import InputError

PARTS = {"files", "network", "processes", "memory", "system_calls", "tasks"}


def pretend(
    monkeypatch: pytest.MonkeyPatch, *, bubblewrap: bool = False, landlock: int = 0, seccomp: bool = True
) -> None:
    """A machine with these; `landlock` is its version, 0 for none."""

    def version() -> int:
        if not landlock:
            raise OSError(38, "Function not implemented")
        return landlock

    def filter_trouble() -> str:
        return "" if seccomp else "the kernel has no seccomp"

    confinement.landlock_trouble.cache_clear()
    monkeypatch.setattr(confinement, "landlock_version", version)
    monkeypatch.setattr(
        sandbox, "_bubblewrap_trouble", lambda: "" if bubblewrap else "`bwrap` is not installed"
    )
    for module in (confinement, sandbox):
        monkeypatch.setattr(module, "seccomp_trouble", filter_trouble)


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    yield
    confinement.landlock_trouble.cache_clear()


def test_strict_takes_the_strongest_that_confines_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, bubblewrap=True, landlock=7)
    assert sandbox.choose_sandbox("strict")[0] == "bubblewrap"
    pretend(monkeypatch, landlock=6)
    assert sandbox.choose_sandbox("strict") == (
        "landlock",
        "sandbox: Landlock, strict (own files only, no sockets, no signals)",
    )


@pytest.mark.parametrize(
    ("machine", "lacks"),
    [
        ({}, "`bwrap` is not installed, and no Landlock here"),
        ({"landlock": 5}, "Landlock keeps signals within only from Linux 6.12 .version 5 here"),
        ({"bubblewrap": True, "landlock": 7, "seccomp": False}, "the kernel has no seccomp"),
    ],
)
def test_strict_refuses_less_and_names_what_lacks(
    monkeypatch: pytest.MonkeyPatch, machine: dict[str, Any], lacks: str
) -> None:
    pretend(monkeypatch, **machine)
    with pytest.raises(InputError, match=f"^--sandbox strict: .*{lacks}.*; install bubblewrap") as raised:
        sandbox.choose_sandbox("strict")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("machine", "line"),
    [
        ({"landlock": 7}, "Landlock (own files only, no network)"),
        (
            {"landlock": 4, "seccomp": False},
            "Landlock (own files only; UDP stays open: the kernel has no seccomp; "
            "before Linux 6.12 it can signal your processes)",
        ),
        (
            {"landlock": 2},
            "Landlock (own files only, no network; before Linux 6.12 it can signal your processes; "
            "before Linux 6.2 it can empty your files)",
        ),
        ({"landlock": 3, "seccomp": False}, "the network stays open: the kernel has no seccomp"),
        ({"bubblewrap": True, "seccomp": False}, "own file system; the kernel has no seccomp)"),
    ],
)  # fmt: skip
def test_what_stays_open_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, machine: dict[str, Any], line: str
) -> None:
    pretend(monkeypatch, **machine)
    said = sandbox.choose_sandbox("auto")[1]
    assert line in said and "\n" not in said


def test_the_record_says_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, landlock=7)
    whole = describe_confinement("landlock", sealed=True, isolates_tasks=True).to_json()
    assert set(whole) == PARTS
    assert not [part for part, text in whole.items() if "open" in text]
    assert describe_confinement("bubblewrap").network.startswith("bubblewrap")
    assert is_offline("landlock") and is_offline("bubblewrap") and not is_offline("none")
    pretend(monkeypatch, landlock=2, seccomp=False)
    part = describe_confinement("landlock", limits_memory=False).to_json()
    assert all("open" in text for text in part.values()) and not is_offline("landlock")
    assert all(
        text.startswith("open")
        for name, text in describe_confinement("none").to_json().items()
        if name != "memory"
    )
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "private memory only" in describe_confinement("none").memory


def test_tasks_are_not_isolated_where_notes_could_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, landlock=7)
    assert not isolation_trouble("landlock") and not isolation_trouble("bubblewrap")
    assert "anywhere on the disk" in isolation_trouble("none")
    pretend(monkeypatch, landlock=5)
    assert "from Linux 6.12" in isolation_trouble("landlock")
    pretend(monkeypatch, landlock=7, seccomp=False)
    assert isolation_trouble("bubblewrap") == "the kernel has no seccomp"


@pytest.mark.medium
def test_a_run_refuses_what_it_cannot_keep(runner: Runner, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    with pytest.raises(InputError, match="--isolate-tasks: without a sandbox"):
        runner(bundle, sandbox="none", isolate_tasks=True)
    if sandbox.strict_trouble(sandbox._bubblewrap_trouble())[0]:
        with pytest.raises(InputError, match="--sandbox strict: memory is not limited"):
            runner(bundle, sandbox="strict")
    assert not runner.output.exists()


@pytest.mark.medium
@pytest.mark.parametrize("bubblewrap", [True, False])
def test_a_strict_run_is_recorded(
    runner: Runner, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, bubblewrap: bool, tmp_path: Path
) -> None:
    """Where there is no bubblewrap, the submission tries what Landlock alone leaves open."""
    if not bubblewrap:
        monkeypatch.setattr(sandbox, "_bubblewrap_trouble", lambda: "not here")
    found, trouble = sandbox.strict_trouble(sandbox._bubblewrap_trouble())
    wanted = "bubblewrap" if bubblewrap else "landlock"
    if found != wanted:
        pytest.skip(f"--sandbox {wanted}: does not confine everything here ({trouble})")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "mine").chmod(0o640)
    attempt = f"""
        for attempt in (os.chmod, lambda place, _: os.utime(place, (1, 1)), os.open):
            try: attempt({str(tmp_path / "mine")!r}, 0)
            except OSError: continue
            raise AssertionError(f"could call {{attempt}}")
        return self.nearest(query_set)
    """
    result = runner(
        make_bundle(predict=attempt),
        sandbox="strict",
        test_tasks_per_dataset=1,
        memory_budget_bytes=4 * 10**9,
    )
    assert not result.failures, result.failures
    status = (tmp_path / "mine").stat()
    assert status.st_mode & 0o777 == 0o640 and status.st_mtime > 1
    record = json.loads((runner.output / "ingestion.json").read_text())
    assert record["sandbox"] == found and record["sandbox_asked"] == "strict"
    assert set(record["confinement"]) == PARTS
    assert [part for part, text in record["confinement"].items() if "open" in text] == ["tasks"]
