"""The device of a machine: what it takes to start, and how work on it is timed. No GPU is needed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
import torch
from synthetic import FakeClock

from autometa.core import machine
from autometa.core.machine import Machine, limit_memory, time_settled, warm_up

SLOW_S, QUICK_S = 8.0, 0.001
FIND_DEVICE = machine._find_device
"""Before tests replace it."""


class ColdWork:
    """Work on a fake clock whose first call takes long."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.calls = clock, 0

    def __call__(self) -> None:
        self.clock.now += SLOW_S if not self.calls else QUICK_S
        self.calls += 1


@pytest.fixture
def cold_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU that is treated as a device that starts cold."""
    monkeypatch.setattr(machine, "COLD_DEVICES", {"cpu"})
    machine._STARTED_S.clear()
    yield
    machine._STARTED_S.clear()


def test_no_rate_is_taken_from_a_first_call(cold_cpu: None) -> None:
    clock = FakeClock()
    assert time_settled(ColdWork(clock), "cpu", clock) == pytest.approx(QUICK_S)


def test_a_device_that_is_always_ready_does_the_work_once() -> None:
    clock = FakeClock()
    work = ColdWork(clock)
    assert time_settled(work, "cpu", clock) == pytest.approx(SLOW_S)
    assert work.calls == 1 and warm_up("cpu") == 0.0


def test_a_device_is_started_once_whoever_asks(cold_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, started = FakeClock(), []

    def start(device: str) -> None:
        started.append(device)
        clock.now += SLOW_S

    monkeypatch.setattr("autometa.core.budget.now", clock)
    monkeypatch.setattr(machine, "_run_first_kernels", start)
    threads = [threading.Thread(target=warm_up, args=("cpu",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert started == ["cpu"] and warm_up("cpu") == SLOW_S


def test_the_first_kernels_run_on_every_device(cold_cpu: None) -> None:
    machine._run_first_kernels("cpu")
    assert machine._agrees_with_cpu("cpu")


def test_an_apple_gpu_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_find_device", FIND_DEVICE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    convolve = machine._convolve
    for error, device in ((0.0, "mps"), (0.1, "cpu"), (float("nan"), "cpu")):

        def off(device: str, dtype: torch.dtype | None = None, error: float = error) -> torch.Tensor:
            return convolve("cpu", dtype) * (1 + error * (device == "mps"))

        monkeypatch.setattr(machine, "_convolve", off)
        assert Machine.detect().device == device


def test_the_allocator_of_a_gpu_gets_the_budget_without_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    monkeypatch.delenv("METADL_TEST_SPEC", raising=False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (7 * 2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    limit_memory("cuda", str(2**31))
    assert shares == [pytest.approx((2**31 - machine.CONTEXT_BYTES) / 2**33)]
    limit_memory("cuda", str(machine.CONTEXT_BYTES))
    assert shares[1] == machine.LEAST_SHARE
    limit_memory("cpu", str(2**31))
    limit_memory("cuda", None)
    assert len(shares) == 2
    monkeypatch.setenv("METADL_TEST_SPEC", '{"standby": true}')
    limit_memory("cuda", str(2**31))
    assert shares[2] == pytest.approx((2**31 - 2 * machine.CONTEXT_BYTES) / 2**33)


@pytest.mark.parametrize(
    ("grown_mib", "standby", "context_mib"),
    [
        (310, False, 300 + 128),
        (610, False, 600 + 128),
        (20, False, 500),
        (9000, False, 500),
        (None, False, 500),
        (310, True, 300 + 128),
        (2 * 310, True, 500),  # both processes, as far as can be seen
    ],
)
def test_the_context_of_a_gpu_is_measured_and_taken_off_the_budget(
    grown_mib: int | None, standby: bool, context_mib: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_use, shares = [10**9], list[float]()

    def tell(_: int) -> int:
        if grown_mib is None:
            raise RuntimeError("cuda driver can't be loaded, is cuda enabled?")
        return in_use[0]

    def run(_: str) -> None:
        in_use[0] += (grown_mib or 0) * 2**20

    monkeypatch.setattr(machine, "_CONTEXTS", {})
    monkeypatch.setattr(machine, "_run_first_kernels", run)
    monkeypatch.setattr(machine, "_STARTED_S", {})
    monkeypatch.setattr(machine, "COLD_DEVICES", {"cuda"})
    monkeypatch.setattr(torch.cuda, "device_memory_used", tell, raising=False)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 10 * 2**20)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (7 * 2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    monkeypatch.setenv("METADL_GPU_MEMORY_BYTES", str(2**31))
    monkeypatch.setenv("METADL_TEST_SPEC", json.dumps({"standby": standby}))
    warm_up("cuda")
    assert machine.context_bytes("cuda") == context_mib * 2**20
    assert shares[-1] == pytest.approx((2048 - (1 + standby) * context_mib) / 8192)


def test_a_device_that_does_not_start_is_not_used(cold_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(machine, "_run_first_kernels", fail)
    monkeypatch.setattr(machine, "COLD_DEVICES", {"cuda"})
    monkeypatch.setattr(machine, "_BROKEN", {})
    monkeypatch.setattr(machine, "_find_device", FIND_DEVICE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert Machine.detect().device == "cuda" and machine.reason_not_to_use("cuda") is None
    assert torch.backends.cudnn.allow_tf32 is False, "whoever asks for the device computes in float32"
    assert warm_up("cuda") == 0.0
    assert machine.reason_not_to_use("cuda") == "no kernel image is available for execution on the device"
    assert Machine.detect().device == "cpu"


def test_free_memory_of_a_gpu_is_what_the_allocator_may_still_take(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"mem_get_info": (50, 100), "memory_allocated": 10, "memory_reserved": 15}
    for name, value in told.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    for fraction, free in ((1.0, 55), (0.3, 20)):
        monkeypatch.setattr(
            torch.cuda, "get_per_process_memory_fraction", lambda f=fraction: f, raising=False
        )
        assert machine.free_bytes("cuda") == free
    graph = FakeClock()  # any object
    machine.set_aside(graph, 2)
    assert machine.free_bytes("cuda") == 18, (
        "the limit is the share of the process, of which a graph keeps some"
    )
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: 1.0, raising=False)
    assert machine.free_bytes("cuda") == 53, "what a graph keeps is not free"
    del graph
    assert machine.free_bytes("cuda") == 55
    monkeypatch.delattr(torch.cuda, "get_per_process_memory_fraction")
    assert machine.free_bytes("cuda") == 55, "older versions of PyTorch do not tell"
    assert machine.free_bytes("cpu") is None
