"""timm, torchvision and optimizers without PyTorch's compiler, which takes over 100 MB and seconds, rarely needed.

torchvision asks `torch._dynamo.utils` for one function, timm marks one with `torch.compiler.disable`, and optimizers
mark theirs and where graphs end: enough to import the compiler with SymPy and Triton. Within `deferred_compiler`, the
first is put off to its first call, and marks have no effect. Whatever else is asked of the compiler imports it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
UTILS = f"{COMPILER}.utils"


class _Deferred(ModuleType):
    """Stands for a module until something is asked of it that it does not have."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_import_real(self.__name__), name)


def _import_real(name: str) -> ModuleType:
    """The module itself, in the place of what stood for it."""
    for deferred in (UTILS, COMPILER):
        if isinstance(sys.modules.get(deferred), _Deferred):
            del sys.modules[deferred]
    return importlib.import_module(name)


def _is_compile_supported(device_type: str) -> Any:
    """As `torch._dynamo.utils.is_compile_supported`."""
    return _import_real(UTILS).is_compile_supported(device_type)


def _disable(fn: Callable[..., Any] | None = None, *_: object, **__: object) -> Any:
    """As `torch._dynamo.disable` where nothing is compiled: the function as it is."""
    return fn if fn is not None else lambda decorated: decorated


def _graph_break(*_: object, **__: object) -> None:
    """As `torch._dynamo.graph_break` where nothing is compiled: nothing."""


@contextmanager
def deferred_compiler() -> Iterator[None]:
    """Import torchvision and timm in this block, or call optimizers. Nothing changes where the compiler is imported
    already."""
    if COMPILER in sys.modules:
        yield
        return
    package, utils = _Deferred(COMPILER), _Deferred(UTILS)
    package.__path__ = []
    package.disable = _disable  # type: ignore[attr-defined]
    package.graph_break = _graph_break  # type: ignore[attr-defined]
    package.utils = utils  # type: ignore[attr-defined]
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {COMPILER: package, UTILS: utils}
    try:
        yield
    finally:
        for name in (UTILS, COMPILER):
            if isinstance(sys.modules.get(name), _Deferred):
                del sys.modules[name]
