"""Fuzzing: the targets stand their seeds and simple changes to them; the fuzzer runs where it is installed."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from _fuzz_targets import TARGETS, run_target  # noqa: E402
from fuzz import NAMES  # noqa: E402

CHANGES = 40


def change(data: bytes, rng: random.Random) -> bytes:
    """Some bytes replaced, a piece doubled or left out."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(3)
        if kind == 0:
            changed[place : place + 1] = rng.randbytes(1)
        elif kind == 1:
            changed[place:place] = changed[place : place + rng.randint(1, 30)]
        else:
            del changed[place : place + rng.randint(1, 30)]
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")  # Pillow's, on damaged images
@pytest.mark.parametrize("name", NAMES)
def test_a_target_stands_its_seeds_and_what_is_like_them(name: str) -> None:
    assert set(NAMES) == set(TARGETS)
    rng = random.Random(name)
    for data in TARGETS[name].seeds:
        run_target(TARGETS[name], data)
    for _ in range(CHANGES):
        run_target(TARGETS[name], change(rng.choice(TARGETS[name].seeds), rng))


def test_what_a_reader_cannot_stand_is_raised() -> None:
    """A target that raises what is not documented, or accepts what it should not, is a finding."""

    def broken(data: bytes, _: Path) -> None:
        int(data)

    with pytest.raises(ValueError, match="invalid literal"):
        run_target(type(TARGETS["table"])(broken, ()), b"x")


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    """From a shell, a small process: the kernel counts the peak of the process that starts a program as the
    program's own, and the fuzzer would hold that of all tests before against its limit."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    command = [*shell, sys.executable, str(ROOT / "scripts" / "fuzz.py"), *arguments]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.medium
def test_an_input_can_be_checked_again(tmp_path: Path) -> None:
    (tmp_path / "found").write_bytes(b"[" * 4000)
    done = fuzz("splits", "--replay", str(tmp_path / "found"))
    assert done.returncode == 0 and "nothing was found" in done.stdout, done.stderr


@pytest.mark.medium
@pytest.mark.parametrize("name", NAMES)
def test_two_seconds_of_fuzzing_find_nothing(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs the extra `fuzz`, which not every Python has")
    done = fuzz(name, "--seconds", "2", "--corpus", str(tmp_path / "corpus"))
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "number_of_executed_units" in done.stderr
    assert len(list((tmp_path / "corpus").iterdir())) >= len(TARGETS[name].seeds)
