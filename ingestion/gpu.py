"""Whether the submission's process can use the GPU that this machine has.

    python -m ingestion.gpu

asks the CUDA driver and prints what it says as JSON. Ingestion runs this under the sandbox and with the variables
that the submission gets, so a GPU that only the parent can use is told and not lost without a word. Where there is no
device of a GPU, nothing is asked.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

DRIVER = "libcuda.so.1"
DEVICES = ("nvidia*", "dxg", "kfd", "dri")
"""In `/dev`: of NVIDIA, of NVIDIA in the Linux of Windows, of AMD."""
CUDA_DEVICES = ("nvidia[0-9]*", "dxg")
UVM = Path("/dev/nvidia-uvm")
LIMIT_S = 20.0
"""Seconds for the driver to answer: on a machine with many GPUs it takes some."""
COMMAND = [
    sys.executable, "-I", "-S", "-c",
    f"import sys; sys.path.append({str(Path(__file__).parents[1].resolve())!r}); "
    "from ingestion.gpu import main; main()",
]  # fmt: skip
"""Reads nothing but Python itself: it also runs unconfined, with the variables of the submission."""

Confine = Callable[[list[str]], list[str]]
"""A command → the same in the sandbox."""


@dataclass(frozen=True)
class CudaAnswer:
    """What the CUDA driver says to a process: how many GPUs it can use, or why none."""

    gpus: int
    trouble: str = ""


def gpu_devices(folder: Path = Path("/dev")) -> list[Path]:
    """The files through which programs reach GPUs, of all makers."""
    return sorted(path for pattern in DEVICES for path in folder.glob(pattern))


def has_cuda_device(folder: Path = Path("/dev")) -> bool:
    """Whether this machine has a GPU of NVIDIA, usable or not."""
    return any(path for pattern in CUDA_DEVICES for path in folder.glob(pattern))


def lacks_device(folder: Path = Path("/dev")) -> bool:
    """Whether a device is missing that the driver of NVIDIA makes when a program first uses it, as after a start of
    the machine. No sandbox has one that comes later."""
    return any(folder.glob(CUDA_DEVICES[0])) and not (folder / UVM.name).exists()


def ask_cuda(load: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> CudaAnswer:
    """Ask the CUDA driver, in this process."""
    try:
        driver = load(DRIVER)
    except OSError as error:
        return CudaAnswer(0, f"the CUDA driver cannot be loaded ({error})")
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        return CudaAnswer(0, f"the CUDA driver says: {(text.value or b'?').decode()} ({status})")
    return CudaAnswer(count.value, "" if count.value else "the CUDA driver finds no GPU")


def ask_in_process(confine: Confine, environment: Mapping[str, str]) -> CudaAnswer:
    """Ask the CUDA driver in a process of its own, confined and with these variables."""
    try:
        done = subprocess.run(
            confine(COMMAND),
            env=dict(environment),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return CudaAnswer(0, f"the CUDA driver did not answer within {LIMIT_S:.0f} s")
    try:
        return CudaAnswer(**json.loads(done.stdout))
    except (ValueError, TypeError):
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return CudaAnswer(0, f"the CUDA driver could not be asked ({last[:200]})")


def is_switched_off(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the user hides all GPUs from programs."""
    return environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles")


def describe_gpu(
    sandbox: str, ask: Callable[[Confine], CudaAnswer], confine: Confine, *, has_device: bool
) -> str | None:
    """A line on the GPU for whoever watches a run; None where there is nothing to say. `ask` is asked within the
    sandbox, and where that finds no GPU, without it too."""
    if not has_device or is_switched_off():
        return None
    if not UVM.exists():
        ask(list)  # makes that device, which nothing may do within a sandbox
    inside = ask(confine)
    if inside.gpus:
        return f"GPU: the submission can use {inside.gpus}"
    if sandbox != "none" and (outside := ask(list)).gpus:
        return (
            f"GPU NOT USED: this machine has {outside.gpus}, but within the sandbox {inside.trouble}. The submission "
            "runs on the CPU. For a submission that you trust, use --sandbox none"
            + ("" if sandbox == "bubblewrap" else ", or install bubblewrap")
        )
    return (
        f"GPU NOT USED: this machine has one, but {inside.trouble}. The submission runs on the CPU. "
        "See whether `nvidia-smi` works, and update the driver if it does not"
    )


def main() -> None:
    """Print the answer of this process."""
    print(json.dumps(asdict(ask_cuda())))


if __name__ == "__main__":
    main()
