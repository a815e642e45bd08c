"""Sandboxes: which is chosen, what is said where there is none, and what Landlock forbids."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxes import skip_without

from ingestion import IngestionSettings, confinement, sandbox
from ingestion.access import PACKAGE_ROOT, Access, readable_folders
from ingestion.errors import InputError
from ingestion.landlocked import EVERYTHING, known_access, landlock_version
from ingestion.launch import check_names


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


def test_what_starts_the_submission_reads_nothing_of_its_folder(tmp_path: Path) -> None:
    """The folder is its home and its working directory, and code of it would run before it is confined."""
    skip_without("landlock")
    scratch, told = tmp_path / "scratch", tmp_path / "told"
    code = f"open({str(told)!r}, 'a').write('read')"
    version = ".".join(map(str, sys.version_info[:2]))
    for name in ("sitecustomize.py", f".local/lib/python{version}/site-packages/usercustomize.py"):
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / name).write_text(code)
    (scratch / "ingestion").mkdir()
    (scratch / "ingestion" / "__init__.py").write_text(code)
    access = Access(readable=readable_folders(), writable=(), scratch=scratch)
    environment = {"HOME": str(scratch), "PYTHONPATH": f"{scratch}:."}
    ask = [sys.executable, "-I", "-c", "import os; print(os.getcwd())"]
    done = subprocess.run(
        sandbox.confine("landlock", ask, access),
        cwd=sandbox.start_folder("landlock", access),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == f"{scratch}\n", done.stderr
    assert not told.exists()


def test_a_strict_run_is_refused_where_names_of_folders_tell_classes(tmp_path: Path) -> None:
    data, scratch = tmp_path / "readable" / "birds", tmp_path / "scratch"
    data.mkdir(parents=True)
    files = [data / name / "1.png" for name in ("heron", "stork")]
    access = Access((tmp_path / "readable",), (), scratch, hidden=(data,))
    settings = IngestionSettings(
        input_data_dir=data, submission=tmp_path, output_dir=tmp_path / "out", sandbox="strict"
    )
    with pytest.raises(InputError, match=r"--sandbox strict: dataset .*birds: lies in .*readable, in which"):
        check_names(settings, "landlock", access, files)
    elsewhere = Access((tmp_path / "other",), (), scratch, hidden=(data,))
    check_names(settings, "landlock", elsewhere, files)
    check_names(settings, "bubblewrap", access, files)
    check_names(settings, "landlock", access, [data / "images" / name for name in ("1.png", "2.png")])
    usual = settings.model_copy(update={"sandbox": "auto"})
    check_names(usual, "landlock", access, files)
