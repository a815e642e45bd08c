"""Odd places for output and caches: a run works there, or says in one line what to do."""

from __future__ import annotations

import errno
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from synthetic import MakeBundle, write_meta_album

from autometa.backbones.local_weights import hub_cache, torch_cache
from autometa.cli.main import cli
from autometa.cli.program import told_of

ROOT = Path(__file__).parents[2]
ODD = "a b\n\tñ日本 'c' $d %e {f} "
LONG = "x" * 200


def invoke(*arguments: str) -> str:
    """A command that is refused; its line on stderr."""
    shown = CliRunner().invoke(cli, list(arguments))
    assert shown.exit_code == 2 and shown.stderr.count("\n") == 1, shown.output
    return shown.stderr


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_meta_album(tmp_path / "data" / "SET", [9] * 8).parent


@pytest.mark.parametrize("command", ["run", "fit", "tune-budget"])
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.ENAMETOOLONG])
def test_an_output_that_cannot_be_made_is_named_with_the_fix(
    photos: Path, tmp_path: Path, command: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, make = tmp_path / "out", Path.mkdir

    def failing(self: Path, *rest: Any, **named: Any) -> None:
        if self == folder:
            raise OSError(number, os.strerror(number), str(self))
        make(self, *rest, **named)

    monkeypatch.setattr(Path, "mkdir", failing)
    monkeypatch.setattr("autometa.cli.run.prepare_process", lambda: None)
    monkeypatch.setattr("autometa.cli.tune_budget.prepare_process", lambda: None)
    dataset = ("--dataset", str(photos)) if command == "run" else (str(photos),)
    line = invoke(command, *dataset, "--output", str(folder))
    assert f"--output {folder}: cannot be used ({os.strerror(number)}); name another folder" in line


@pytest.mark.parametrize("command", ["run", "fit"])
def test_a_cache_that_cannot_be_written_is_named_with_the_fix(
    photos: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autometa.cli.run.prepare_process", lambda: None)
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUTOMETA_CACHE_DIR", str(tmp_path / "file"))
    dataset = ("--dataset", str(photos)) if command == "run" else (str(photos),)
    line = invoke(command, *dataset, "--output", str(tmp_path / "out"))
    assert "file/images: Not a directory; choose another folder" in line
    assert "AUTOMETA_CACHE_DIR" in line


WITHOUT_PROC = """
import psutil, sys
psutil.PROCFS_PATH = "/no/proc"
from {module} import {main}
sys.argv[1:] = {arguments}
{main}()
"""


@pytest.mark.medium
@pytest.mark.parametrize(
    ("module", "main", "command"),
    [
        ("autometa.cli.main", "main", ["run", "--output", "{}", "--dataset"]),
        ("autometa.cli.main", "main", ["tune-budget", "--output", "{}", "--dry-run"]),
        ("run_local", "main", ["--output", "{}", "--dataset"]),
    ],
    ids=["run", "tune-budget", "run_local"],
)
def test_where_linux_shows_no_processes_a_line_says_what_to_mount(
    photos: Path, tmp_path: Path, module: str, main: str, command: list[str]
) -> None:
    output = tmp_path / "out"
    arguments = [*(word.format(output) for word in command), str(photos)]
    code = WITHOUT_PROC.format(module=module, main=main, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode and done.stderr.count("\n") == 1, done.stderr
    assert "/proc" in done.stderr and "mount it: mount -t proc proc /proc" in done.stderr
    assert not output.exists()
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/proc/meminfo")  # of other commands
    assert told_of(missing) == "/proc/meminfo: No such file or directory; mount it: mount -t proc proc /proc"


@pytest.mark.parametrize("command", ["run", "fit"])
def test_a_user_without_a_home_is_told_what_to_set(
    photos: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr("autometa.cli.run.prepare_process", lambda: None)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "AUTOMETA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    dataset = ("--dataset", str(photos)) if command == "run" else (str(photos),)
    line = invoke(command, *dataset, "--output", str(tmp_path / "out"))
    assert "HOME is not set" in line and "set HOME to a folder that can be written" in line
    assert not hub_cache({}).exists() and not torch_cache({}).exists()  # weights in packages are used then


@pytest.mark.medium
@pytest.mark.parametrize("sandboxed", ["auto", "none"])
def test_a_run_works_in_a_folder_with_an_odd_long_name_in_the_plainest_locale(
    tmp_path: Path, make_bundle: MakeBundle, sandboxed: str
) -> None:
    """Everything at once: blanks, a newline, other scripts, quotes, 200 letters; no language, no terminal."""
    dataset = write_meta_album(tmp_path / "data" / "SET", [9] * 8).parent
    output = tmp_path / ODD / LONG
    bundle = make_bundle(meta_fit='print("ñ日本"); return MyLearner()')
    command = [
        sys.executable,
        "run_local.py",
        "--verbose",
        "--dataset",
        str(dataset),
        "--submission",
        str(bundle),
    ]
    command += ["--output", str(output), "--tasks-per-dataset", "2", "--time-budget", "200s"]
    command += [
        "--sandbox",
        sandboxed,
        "--query-per-class",
        "4",
        "--image-size",
        "16",
        "--memory-budget",
        "2GB",
    ]
    plain = {
        name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS", "PYTHONPATH") if name in os.environ
    }
    plain |= {"LC_ALL": "C", "HOME": str(tmp_path / ODD), "CUDA_VISIBLE_DEVICES": "", "PYTHONUTF8": "0"}
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, check=False, timeout=300)
    shown = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0 and "Traceback" not in shown, shown
    assert (output / "scoring" / "report.html").exists()
    assert len(list((output / "ingestion").glob("task_*.predict"))) == 2
    assert (tmp_path / ODD / ".cache" / "autometa" / "images").is_dir()
