"""A pretended GPU: tensors that are said to be on it are computed with on the CPU, and what a real one refuses is
refused: tensors of two devices in one operation, NumPy's view of a tensor there, numbers drawn there by the CPU's
generator. No CUDA graph can be captured on it.

Two modes of PyTorch do this (https://docs.pytorch.org/docs/stable/notes/extending.html). One sees what Python calls,
and so what is asked about devices; the other sees each operation, also within gradients and `vmap`. A tensor is where
its storage is: views, parameters and whatever shares its data are there too.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

import pytest
import torch
import torch._dynamo.device_interface  # before `torch.cuda` is pretended: it looks at the classes there
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CARD, HOST = torch.device("cuda", 0), torch.device("cpu")
CARD_BYTES = 2**34
TENSOR = torch.Tensor
MAY_MIX = {"copy_", "_to_copy", "set_", "is_pinned", "_local_scalar_dense", "lift_fresh"}
"""Operations that take tensors of several devices."""
PACK, PAD = "_pack_padded_sequence", "_pad_packed_sequence"
"""Of sequences of several lengths: the number of rows of each step is on the host, always."""
MAY_INDEX = {"index", "_unsafe_index", "index_put", "index_put_", "_unsafe_index_put", "_index_put_impl_"}
"""Operations whose indices may be on the CPU."""
WRONG_GENERATOR = "Expected a 'cuda' device type for generator but found 'cpu'"


class Card:
    """What is where: for each storage True on the card, False on the host; absent: not known yet.

    `operations`: on the card so far. `refused`: what was, as a program may take that for an outcome. The card has
    `total_bytes`, of which PyTorch may take a `share`; tensors there take `now_bytes`, and `peak_bytes` at most.
    `ran_out`: how often that was too much.
    """

    def __init__(self) -> None:
        self.operations = self.ran_out = 0
        self.refused: list[str] = []
        self.total_bytes, self.share, self.now_bytes, self.peak_bytes = CARD_BYTES, 1.0, 0, 0
        self._on_card: dict[int, bool] = {}

    def refuse(self, error: Exception) -> NoReturn:
        """Raise it."""
        self.refused.append(str(error))
        raise error

    def find(self, tensor: TENSOR) -> bool | None:
        """Whether a tensor is on the card."""
        return self._on_card.get(_storage(tensor)._cdata)

    def note(self, tensor: TENSOR, *, on_card: bool) -> None:
        """A tensor, with all that shares its data, is there."""
        storage = _storage(tensor)
        address, size = storage._cdata, storage.nbytes()
        if address not in self._on_card:
            weakref.finalize(storage, self._forget, address, size).atexit = False
        self.now_bytes += size * (on_card - self._on_card.get(address, False))
        self._on_card[address] = on_card
        self.peak_bytes = max(self.peak_bytes, self.now_bytes)
        if on_card and self.now_bytes > self.share * self.total_bytes:
            self.ran_out += 1
            raise torch.cuda.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate more than a pretended GPU has."
            )

    def _forget(self, address: int, size: int) -> None:
        self.now_bytes -= size * self._on_card.pop(address, False)

    def answers(self) -> dict[str, Callable[..., Any]]:
        """What `torch.cuda` says of memory."""
        return {
            "mem_get_info": lambda *_: (self.total_bytes - self.now_bytes, self.total_bytes),
            "memory_allocated": lambda *_: self.now_bytes,
            "memory_reserved": lambda *_: self.now_bytes,
            "max_memory_allocated": lambda *_: self.peak_bytes,
            "reset_peak_memory_stats": lambda *_: setattr(self, "peak_bytes", self.now_bytes),
            "set_per_process_memory_fraction": lambda share, *_: setattr(self, "share", share),
            "get_per_process_memory_fraction": lambda *_: self.share,
        }


def _storage(tensor: TENSOR) -> torch.UntypedStorage:
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return TENSOR.untyped_storage(tensor)


def _tensors(values: object) -> list[TENSOR]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, TENSOR)]


def _is_card(device: object) -> bool | None:
    """Whether this names the card, or the host; None for anything else."""
    kind = str(device).partition(":")[0] if isinstance(device, (str, torch.device)) else ""
    return {"cuda": True, "cpu": False}.get(kind)


class Operations(TorchDispatchMode):
    """Refuses what a GPU refuses, and notes where results are."""

    def __init__(self, card: Card) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._card = card

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), func._schema.name.removeprefix("aten::")
        known = [self._card.find(tensor) for tensor in _tensors((args, kwargs))]
        on_card = True in known
        self._card.operations += on_card
        if on_card and name not in MAY_MIX:
            self._check(name, args, kwargs)
        result = func(*args, **kwargs)
        if name == PACK:
            self._card.note(result[1], on_card=False)
        for tensor in _tensors(result):
            if self._card.find(tensor) is None and (on_card or False in known):
                self._card.note(tensor, on_card=on_card)
        return result

    def _check(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Tensors are on one device, but for numbers and indices, and no generator is the CPU's."""
        looked_at = _tensors((args, kwargs))
        if name in (PACK, PAD):
            looked_at = [args[0]]
            if self._card.find(args[1]):
                self._card.refuse(RuntimeError("'lengths' argument should be a 1D CPU int64 tensor"))
        if name in MAY_INDEX:
            looked_at = _tensors((args[0], *args[2:3]))
            if self._card.find(args[0]) is False:
                self._card.refuse(
                    RuntimeError("indices should be on the same device as the indexed tensor (cpu)")
                )
        if any(self._card.find(tensor) is False and (tensor.ndim or name == "cat") for tensor in looked_at):
            self._card.refuse(
                RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                    f"({name})"
                )
            )
        if kwargs.get("generator") is not None:
            self._card.refuse(RuntimeError(WRONG_GENERATOR))


class Calls(TorchFunctionMode):
    """Answers what Python asks about devices, brings tensors elsewhere, and notes where new ones are."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self._card = card

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in QUESTIONS:
            return self._answer(QUESTIONS[func], args[0])
        if func in BRINGS:
            return self._bring(BRINGS[func], args, kwargs)
        if func in (TENSOR.numpy, TENSOR.__array__) and self._card.find(args[0]):
            self._card.refuse(
                TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
            )
        if func is TENSOR.pin_memory:
            return args[0].clone()
        kwargs.pop("pin_memory", None)
        wanted = _is_card(kwargs.get("device"))
        if wanted is not None:
            del kwargs["device"]
        if wanted and kwargs.get("generator") is not None:
            self._card.refuse(RuntimeError(WRONG_GENERATOR))
        result = func(*args, **kwargs)
        return tree_map_only(TENSOR, lambda tensor: self._place(tensor, wanted, (args, kwargs)), result)

    def _place(self, tensor: TENSOR, wanted: bool | None, given: object) -> TENSOR:
        """A result is where it was wanted, else where it is noted to be, else where the given tensors are."""
        found = self._card.find(tensor)
        if wanted is not None and found is not None and found != wanted:
            tensor, found = tensor.clone(), None
        if found is None and tensor.device.type == HOST.type:
            inherited = any(self._card.find(each) for each in _tensors(given))
            self._card.note(tensor, on_card=inherited if wanted is None else wanted)
        return tensor

    def _answer(self, question: str, tensor: TENSOR) -> object:
        on_card, real = self._card.find(tensor), TENSOR.device.__get__(tensor)
        if real.type != HOST.type:  # such as `meta`
            return {"device": real, "is_cuda": False, "is_cpu": False}.get(question, -1)
        answers = {"device": CARD if on_card else HOST, "is_cuda": bool(on_card), "is_cpu": not on_card}
        return answers.get(question, 0 if on_card else -1)

    def _bring(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> TENSOR:
        """What `Tensor.to`, `Tensor.cuda` and `Tensor.cpu` give: the same tensor where nothing changes."""
        tensor, more = args[0], dict[str, Any](copy=kwargs.pop("copy", False))
        here = bool(self._card.find(tensor))
        if name == "to":
            others = [each for each in args[1:] if isinstance(each, TENSOR)]
            parsed: tuple[Any, ...] = torch._C._nn._parse_to(*args[1:], **kwargs)
            device, dtype, _, layout = parsed
            if device is not None and _is_card(device) is None:
                return TENSOR.to(tensor, *args[1:], **kwargs)
            asked = self._card.find(others[0]) if others else _is_card(device)
            wanted = here if asked is None else asked
        else:
            wanted, dtype, layout = name == "cuda", None, kwargs.get("memory_format")
        more |= {"memory_format": layout} if layout is not None else {}
        more["copy"] = more["copy"] or wanted != here
        moved = TENSOR.to(tensor, dtype or tensor.dtype, **more)
        self._card.note(moved, on_card=wanted)
        return moved


GETTERS: Any = TENSOR
QUESTIONS = {
    GETTERS.device.__get__: "device",
    GETTERS.is_cuda.__get__: "is_cuda",
    GETTERS.is_cpu.__get__: "is_cpu",
    GETTERS.get_device: "index",
}
BRINGS = {TENSOR.to: "to", TENSOR.cpu: "cpu", TENSOR.cuda: "cuda"}


class Stream:
    """Work is done when it is asked for."""

    def synchronize(self) -> None:
        """It is done."""

    def wait_stream(self, other: object) -> None:
        """It is done."""

    def is_capturing(self) -> bool:
        """Never."""
        return False


def _refuse_graph(*_: object, **__: object) -> None:
    raise RuntimeError("a pretended GPU captures no graphs")


# fmt: off
ANSWERS: dict[str, Any] = {
    "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0, "synchronize": None,
    "empty_cache": None, "current_stream": Stream(), "set_stream": None, "Stream": Stream(),
    "graph_pool_handle": (0, 0), "get_device_name": "a pretended GPU", "_lazy_init": None,
    "get_device_capability": (9, 0), "is_bf16_supported": True, "is_current_stream_capturing": False,
    "stream": nullcontext(), "device": nullcontext(), "set_rng_state": None,
}
"""What else `torch.cuda` says and does."""
# fmt: on


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    """Within it, PyTorch finds one GPU, in this thread and in those that are started."""
    card, run = Card(), threading.Thread.run
    for name, answer in ANSWERS.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer, raising=False)
    for name, tell in card.answers().items():
        monkeypatch.setattr(torch.cuda, name, tell, raising=False)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _refuse_graph)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: torch.get_rng_state())
    monkeypatch.setattr(torch.nn.RNNBase, "flatten_parameters", lambda _: None)  # which asks the driver
    if hasattr(torch, "accelerator"):
        monkeypatch.setattr(torch.accelerator, "current_stream", lambda *_: Stream(), raising=False)
        monkeypatch.setattr(torch.accelerator, "current_device_index", lambda *_: 0, raising=False)

    def run_there(thread: threading.Thread) -> None:
        with Calls(card), Operations(card):
            run(thread)

    monkeypatch.setattr(threading.Thread, "run", run_there)
    with Calls(card), Operations(card):
        yield card
