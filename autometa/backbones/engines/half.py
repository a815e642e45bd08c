"""The network in half precision, for GPUs: eagerly, or as a CUDA graph for full chunks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from autometa.backbones.batches import FEW, LARGEST_GPU_BATCH, to_host
from autometa.backbones.engines.base import split_into_chunks
from autometa.backbones.network import PixelNetwork
from autometa.core.machine import set_aside

GRAPH_CHUNK = LARGE = LARGEST_GPU_BATCH
"""Images of a graph. On an H100, 256 are as fast an image as 1,024, and without a graph only 1,024 are. A chunk of at
most one part in `FEW` of a graph's runs without it."""
WARM_UP_RUNS = 3
"""Before a graph is captured, as PyTorch asks for."""

Result = TypeVar("Result")
Capture = Callable[[Callable[[], Result]], tuple[Callable[[], None], Result]]
"""Work → what repeats it, and its result, whose tensors each repetition writes to."""


class _Cast(nn.Module):
    """Any precision → `dtype`."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self._dtype)


def to_half(network: PixelNetwork, px: int, device: str, dtype: torch.dtype) -> PixelNetwork:
    """A copy of a network, for one size, with weights of this precision. Pixels are normalised in float32, and it
    gives float32."""
    half = copy.deepcopy(network.fit_to_size(px)).to(device)
    half.model.to(dtype).to(memory_format=torch.channels_last)
    half.normalise = nn.Sequential(half.normalise, _Cast(dtype))  # type: ignore[assignment]
    return half.eval()


class Half:
    """The network in half precision. Batches are padded to one of few sizes, as each new size takes time.
    RuntimeError where numbers are too large for it."""

    def __init__(self, network: PixelNetwork, px: int, device: str, *, dtype: torch.dtype) -> None:
        self._network, self._device = to_half(network, px, device, dtype), device

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, px, px] → float32 [n, d]."""
        parts = [self._run_padded(part, LARGE) for part in split_into_chunks(images, LARGE)]
        return torch.cat(parts)  # which copies even one of them out of page-locked memory

    def _run_padded(self, images: torch.Tensor, large: int) -> torch.Tensor:
        """The result for at most `large` images, which are padded to that or to a quarter as often as they fit."""
        size = large
        while len(images) * FEW <= size > 1:
            size //= FEW
        return to_host(check_finite(self._run(pad_images(images, size))[: len(images)]), self._device)

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        batch = images.to(self._device).contiguous(memory_format=torch.channels_last)
        output: torch.Tensor = self._network(batch)
        return output


class HalfGraph(Half):
    """The network in half precision as a graph for chunks of one size, which takes the time for launching kernels
    once. A chunk that is much smaller runs without it, a slightly smaller one is padded."""

    def __init__(
        self,
        network: PixelNetwork,
        px: int,
        device: str,
        *,
        dtype: torch.dtype = torch.float16,
        chunk: int = GRAPH_CHUNK,
        capture: Capture[torch.Tensor] | None = None,
    ) -> None:
        super().__init__(network, px, device, dtype=dtype)
        zeros = torch.zeros(chunk, 3, px, px, dtype=torch.uint8, device=device)
        self._images, self._chunk = zeros.contiguous(memory_format=torch.channels_last), chunk
        with torch.no_grad():
            self._run_padded(zeros[: max(chunk // FEW, 1)], chunk)  # the size of the last batch, often
            self._replay, self._output = (capture or capture_cuda)(lambda: self._network(self._images))

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, px, px] → float32 [n, d]."""
        return torch.cat([self._run_chunk(chunk) for chunk in split_into_chunks(images, self._chunk)])

    def _run_chunk(self, images: torch.Tensor) -> torch.Tensor:
        n = len(images)
        if n * FEW <= self._chunk:
            return self._run_padded(images, self._chunk)
        self._images.copy_(pad_images(images, self._chunk), non_blocking=True)
        self._replay()
        return to_host(check_finite(self._output[:n]), self._device)  # the next chunk overwrites it


def check_finite(features: torch.Tensor) -> torch.Tensor:
    """The features; RuntimeError where one is no finite number."""
    if not bool(features.isfinite().all()):
        raise RuntimeError("numbers too large for half precision")
    return features


def pad_images(images: torch.Tensor, n: int) -> torch.Tensor:
    """The images [m, 3, px, px] and black ones, [n, 3, px, px]."""
    if len(images) == n:
        return images  # padding by nothing copies them
    return F.pad(images, (0, 0, 0, 0, 0, 0, 0, n - len(images)))


def capture_cuda(work: Callable[[], Result], pool: Any = None) -> tuple[Callable[[], None], Result]:
    """Capture work on the GPU as a CUDA graph (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).

    Graphs with one `pool` (`torch.cuda.graph_pool_handle`) share their working memory: a run of one may overwrite the
    result of another. RuntimeError where no graph can hold the work. Workspaces of matrix products, 32 MiB for each
    stream and thread on recent cards, are given back in between, so that those of the graph lie in its own memory.
    """
    current, stream = torch.cuda.current_stream(), _side_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_RUNS):
            work()
    current.wait_stream(stream)
    _free_workspaces()
    torch.cuda.empty_cache()  # as a capture does, so that what is reserved then is the graph's
    graph, reserved = torch.cuda.CUDAGraph(), torch.cuda.memory_reserved()
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            output = work()
    finally:  # a capture that fails stays on its own stream
        torch.cuda.set_stream(current)
    _free_workspaces()
    set_aside(graph, max(torch.cuda.memory_reserved() - reserved, 0))
    return graph.replay, output


@cache
def _side_stream() -> torch.cuda.Stream:
    """The one on which all graphs are captured: each stream has workspaces of its own."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _free_workspaces() -> None:
    """Give back what cuBLAS keeps to work in, once the GPU is done with it; older versions of PyTorch cannot."""
    torch.cuda.synchronize()
    free = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if free is not None:
        free()


build_float16 = partial(Half, dtype=torch.float16)
build_bfloat16 = partial(Half, dtype=torch.bfloat16)
