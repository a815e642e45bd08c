"""Running out of memory as an outcome: the same work in smaller parts."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import TypeVar

from autometa.core.errors import BudgetExhausted

OUT_OF_MEMORY_TEXT = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "unable to find an engine to execute this computation",  # cuDNN, where none of its workspaces has room
)
"""What errors of torch and of the libraries below it say, in lower case."""

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, Python or a library means that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXT)


def free_memory() -> None:
    """Give back what failed work has left behind."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def fits_memory(work: Callable[[], T]) -> tuple[bool, T | None, str]:
    """Whether work ended, its result, and where memory ran out, what the error said. Other errors pass through. The
    memory of what failed is free again afterwards."""
    try:
        return True, work(), ""
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        text = str(error)
    free_memory()  # outside the handler, so that the traceback's frames no longer hold tensors
    return False, None, text


def in_chunks(
    work: Callable[[int, int], T],
    n: int,
    chunk: int,
    *,
    item: str = "item",
    snapshot: Callable[[], Callable[[], None]] | None = None,
) -> list[T]:
    """`work(start, stop)` over 0..n in steps of `chunk`; a step that runs out of memory is done again in
    halves, those before it stay done. BudgetExhausted where even a single item does not fit.

    `snapshot`, for work that changes something as it goes: called before each step, it gives what undoes the step.
    """
    results: list[T] = []
    start = 0
    while start < n:
        stop = min(start + chunk, n)
        undo = None  # frees the one before
        undo = snapshot() if snapshot else None
        fits, result, error = fits_memory(lambda first=start, last=stop: work(first, last))  # type: ignore[misc]
        if fits:
            results.append(result)  # type: ignore[arg-type]
            start = stop
            continue
        if undo:
            undo()
        if chunk == 1:
            raise BudgetExhausted(f"not enough memory for a single {item} ({error})")
        chunk = max(min(chunk, n) // 2, 1)
    return results
