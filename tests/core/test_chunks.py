"""Work that runs out of memory is done in smaller parts."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch

from autometa.core.chunks import fits_memory, in_chunks, is_out_of_memory
from autometa.core.errors import BudgetExhausted

TEXTS = [
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried",
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.19 GiB",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "GET was unable to find an engine to execute this computation",
    "MPS backend out of memory (MPS allocated: 8.00 GB)",
    "std::bad_alloc",
]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_of_cpu_and_gpu_are_known(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))


def test_types_are_known_and_other_errors_are_not() -> None:
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError("full"))
    assert not is_out_of_memory(RuntimeError("expected a tensor"))
    with pytest.raises(RuntimeError, match="expected a tensor"):
        fits_memory(lambda: (_ for _ in ()).throw(RuntimeError("expected a tensor")))


@pytest.mark.parametrize("text", TEXTS)
def test_chunks_are_halved_from_the_one_that_failed_with_the_same_result(text: str) -> None:
    begun: list[tuple[int, int]] = []

    def work(start: int, stop: int) -> torch.Tensor:
        begun.append((start, stop))
        if stop - start > 3 and start >= 4:
            raise RuntimeError(text)
        return torch.arange(start, stop)

    assert torch.cat(in_chunks(work, 11, 4)).tolist() == list(range(11))
    assert begun == [(0, 4), (4, 8), (4, 6), (6, 8), (8, 10), (10, 11)]


def test_a_short_last_chunk_is_halved_too() -> None:
    def work(start: int, stop: int) -> int:
        if stop - start > 2:
            raise MemoryError
        return stop - start

    assert in_chunks(work, 3, 64) == [1, 1, 1]


def test_a_step_that_fails_is_undone_and_those_before_it_stay_done() -> None:
    state: list[int] = []

    def snapshot() -> Callable[[], None]:
        before = list(state)
        return lambda: state.__setitem__(slice(None), before)

    def work(start: int, stop: int) -> None:
        for item in range(start, stop):
            state.append(item)
            if stop - start > 2 and item == 5:
                raise MemoryError

    in_chunks(work, 9, 4, snapshot=snapshot)
    assert state == list(range(9))

    def never(start: int, stop: int) -> None:
        state.append(-1)
        raise MemoryError

    with pytest.raises(BudgetExhausted, match="a single task"):
        in_chunks(never, 2, 2, item="task", snapshot=snapshot)
    assert state == list(range(9))


@pytest.mark.medium
def test_one_item_that_does_not_fit_is_told() -> None:
    def work(start: int, stop: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(BudgetExhausted, match=r"not enough memory for a single item.*CUDA out of memory"):
        in_chunks(work, 5, 4)


def test_the_memory_of_what_failed_is_free_again() -> None:
    class Large:
        pass

    held: list[weakref.ref[Large]] = []

    def work() -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise MemoryError(str(large))

    gc.disable()
    try:
        assert fits_memory(work)[0] is False
    finally:
        gc.enable()
    assert held[0]() is None
