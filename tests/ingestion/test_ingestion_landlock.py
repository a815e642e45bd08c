"""Sandboxes: which is chosen, what is said where there is none, and what Landlock forbids."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxes import skip_without

from ingestion import confinement, sandbox
from ingestion.access import PACKAGE_ROOT, Access, readable_folders
from ingestion.errors import InputError
from ingestion.landlocked import EVERYTHING, known_access, landlock_version


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    """What was found out about this machine is forgotten before and after."""
    for question in (confinement.landlock_trouble, sandbox._bubblewrap_trouble):
        question.cache_clear()
    yield
    for question in (confinement.landlock_trouble, sandbox._bubblewrap_trouble):
        question.cache_clear()


def no_landlock() -> int:
    """As a kernel without it answers."""
    raise OSError(errno.ENOSYS, "Function not implemented")


def test_without_a_sandbox_the_run_says_so_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "landlock_version", no_landlock)
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    kind, line = sandbox.choose_sandbox("auto")
    assert kind == "none"
    assert line.startswith("sandbox: none (no Landlock here (Function not implemented), it needs Linux 5.13")
    assert line.endswith("no bubblewrap); run only submissions that you trust")
    with pytest.raises(InputError, match=r"--sandbox landlock: no Landlock here .*; use --sandbox auto"):
        sandbox.choose_sandbox("landlock")
    with pytest.raises(InputError, match="--sandbox bubblewrap: the program `bwrap` is not installed"):
        sandbox.choose_sandbox("bubblewrap")


def test_landlock_is_asked_only_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OSError, match="a part of Linux, this is darwin"):
        landlock_version()


def test_a_kernel_is_asked_to_forbid_what_it_knows() -> None:
    assert [known_access(version) for version in (1, 2, 3, 4)] == [2**13 - 1, 2**14 - 1, 2**15 - 1, 2**15 - 1]
    assert known_access(5) == known_access(9) == EVERYTHING == 2**16 - 1


def test_landlock_allows_what_is_listed_and_nothing_else(tmp_path: Path) -> None:
    skip_without("landlock")
    for name in ("readable", "writable", "outside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    code = f"""
import os
from pathlib import Path
root = Path({str(tmp_path)!r})
assert (root / "readable" / "file").read_text() == "readable"
(root / "writable" / "new").write_text("")
(root / "writable" / "new").unlink()
assert sorted(os.listdir(root / "outside")) == ["file"]
for attempt in (
    lambda: (root / "outside" / "file").read_text(),
    lambda: (root / "outside" / "file").unlink(),
    lambda: (root / "readable" / "file").write_text(""),
    lambda: (root / "readable" / "new").mkdir(),
    lambda: os.truncate(root / "readable" / "file", 0),
    lambda: Path("/proc/1/environ").read_text(),
):
    try:
        attempt()
    except OSError:
        continue
    raise AssertionError("was allowed")
print("confined")
"""
    access = Access(
        readable=(*readable_folders(), tmp_path / "readable"),
        writable=(),
        scratch=tmp_path / "writable",
    )
    command = sandbox.confine("landlock", [sys.executable, "-c", code], access)
    command.insert(command.index("--"), f"--list={tmp_path}")
    done = subprocess.run(command, cwd=PACKAGE_ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "confined\n", done.stderr
