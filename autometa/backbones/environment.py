"""Checking that the installed packages fit together."""

from __future__ import annotations

import importlib
import importlib.metadata

from autometa.core.errors import BrokenEnvironment

FIX = "install both from the same source: pip install --force-reinstall torch torchvision timm"


def check_environment() -> None:
    """BrokenEnvironment, one line with the fix, if torchvision cannot be imported with the installed torch, such as a
    CUDA torchvision with a CPU-only torch."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BrokenEnvironment(
            f"torchvision {_version('torchvision')} cannot be imported with torch {_version('torch')} "
            f"({reason}); {FIX}"
        ) from None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
