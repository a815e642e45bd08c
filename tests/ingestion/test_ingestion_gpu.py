"""What a run says of the GPU of its machine. The driver is a fake: a machine without a GPU runs these tests too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ingestion_runs import Runner
from sandboxes import skip_without
from synthetic import MakeBundle

import ingestion.gpu
from ingestion import sandbox
from ingestion.access import PACKAGE_ROOT, Access, readable_folders
from ingestion.gpu import (
    CudaAnswer,
    ask_cuda,
    ask_in_process,
    describe_gpu,
    gpu_devices,
    has_cuda_device,
    is_switched_off,
    lacks_device,
)


def driver(init: int = 0, devices: int = 1, text: bytes = b"OS call failed") -> Any:
    def count(pointer: Any) -> int:
        pointer._obj.value = devices
        return 0

    def name(_: int, pointer: Any) -> int:
        pointer._obj.value = text
        return 0

    return SimpleNamespace(cuInit=lambda _: init, cuDeviceGetCount=count, cuGetErrorString=name)


def test_the_driver_tells_how_many_gpus_there_are_or_why_none() -> None:
    assert ask_cuda(lambda _: driver(devices=2)) == CudaAnswer(2)
    assert ask_cuda(lambda _: driver(devices=0)).trouble == "the CUDA driver finds no GPU"
    assert ask_cuda(lambda _: driver(init=304)) == CudaAnswer(0, "the CUDA driver says: OS call failed (304)")

    def missing(name: str) -> Any:
        raise OSError(f"{name}: no such file")

    assert "cannot be loaded (libcuda.so.1" in ask_cuda(missing).trouble


def test_devices_of_all_makers_are_found(tmp_path: Path) -> None:
    assert not gpu_devices(tmp_path) and not has_cuda_device(tmp_path)
    for name in ("nvidiactl", "dri", "null"):
        (tmp_path / name).touch()
    assert [path.name for path in gpu_devices(tmp_path)] == ["dri", "nvidiactl"]
    assert not has_cuda_device(tmp_path)
    assert not lacks_device(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert has_cuda_device(tmp_path) and lacks_device(tmp_path)
    (tmp_path / "nvidia-uvm").touch()
    assert not lacks_device(tmp_path)


def answers(inside: CudaAnswer, outside: CudaAnswer) -> Any:
    """What is said with and without a sandbox, which is the word `bwrap` before a command."""
    return lambda confine: inside if confine(["program"])[0] == "bwrap" else outside


def confined(command: list[str]) -> list[str]:
    return ["bwrap", *command]


SEEN, HIDDEN, BROKEN = CudaAnswer(1), CudaAnswer(0, "error 304"), CudaAnswer(0, "too old a driver")


@pytest.mark.parametrize(
    ("used", "ask", "expected"),
    [
        ("bubblewrap", answers(SEEN, SEEN), ["GPU: the submission can use 1"]),
        (
            "bubblewrap",
            answers(HIDDEN, SEEN),
            ["GPU NOT USED", "within the sandbox error 304", "--sandbox none"],
        ),
        ("landlock", answers(HIDDEN, SEEN), ["GPU NOT USED", "or install bubblewrap"]),
        ("landlock", answers(HIDDEN, BROKEN), ["GPU NOT USED", "but error 304", "nvidia-smi"]),
    ],
)
def test_a_gpu_that_the_submission_cannot_use_is_a_loud_line(
    used: str, ask: Any, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(ingestion.gpu, "UVM", Path("/dev/null"))
    line = describe_gpu(used, ask, confined, has_device=True)
    assert line is not None and all(part in line for part in expected), line
    assert describe_gpu(used, ask, confined, has_device=False) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert describe_gpu(used, ask, confined, has_device=True) is None


def test_gpus_that_the_user_hides_are_not_missed() -> None:
    assert is_switched_off({"CUDA_VISIBLE_DEVICES": "-1"}) and is_switched_off({"CUDA_VISIBLE_DEVICES": ""})
    assert not is_switched_off({"CUDA_VISIBLE_DEVICES": "1"}) and not is_switched_off({})


def test_a_process_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(code: str) -> CudaAnswer:
        return ask_in_process(lambda _: [sys.executable, "-c", code], {})

    assert ask("print('{\"gpus\": 3}')") == CudaAnswer(3)
    assert ask("raise SystemExit('no module')").trouble == "the CUDA driver could not be asked (no module)"
    assert "exit status 3" in ask("raise SystemExit(3)").trouble
    monkeypatch.setattr(ingestion.gpu, "LIMIT_S", 0.2)
    assert "did not answer" in ask("import time; time.sleep(60)").trouble


@pytest.mark.medium
def test_a_run_says_it(runner: Runner, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("ingestion.process.has_cuda_device", lambda: True)
    said = json.dumps({"gpus": 0, "trouble": "the CUDA driver says: unknown error (999)"})
    monkeypatch.setattr(ingestion.gpu, "COMMAND", [sys.executable, "-c", f"print({said!r})"])
    runner(make_bundle(), test_tasks_per_dataset=1)
    assert (
        "GPU NOT USED: this machine has one, but the CUDA driver says: unknown error (999)"
        in runner.texts("note")
    )
    record = json.loads((runner.output / "ingestion.json").read_text())
    assert any("GPU NOT USED" in note for note in record["notes"])


@pytest.mark.parametrize("used", ["landlock", "bubblewrap"])
def test_a_sandbox_lets_a_process_name_its_own_threads(used: str, tmp_path: Path) -> None:
    """As the driver of a GPU does when it starts, through a file of `/proc`; other processes stay closed."""
    skip_without(used)
    code = """
import os, threading
ended = threading.Event()
thread = threading.Thread(target=ended.wait)
thread.start()
with open(f"/proc/self/task/{thread.native_id}/comm", "r+") as file:
    file.write("cuda-named")
print(open(f"/proc/self/task/{thread.native_id}/comm").read().strip())
ended.set()
for name in ("/proc/1/environ", f"/proc/{os.getppid()}/comm"):
    try: open(name, "r+" if name.endswith("comm") else "r").read()
    except OSError: continue
    if os.getppid() not in (0, 1): raise SystemExit(f"{name} is open")
"""
    access = Access(readable=readable_folders(), writable=(), scratch=tmp_path)
    command = sandbox.confine(used, [sys.executable, "-c", code], access)
    done = subprocess.run(command, cwd=PACKAGE_ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "cuda-named\n", done.stderr
    assert not done.returncode, done.stderr
