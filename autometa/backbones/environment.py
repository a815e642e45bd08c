"""Whether the installed packages fit together."""

from __future__ import annotations

import importlib
import importlib.metadata

from autometa.core.errors import BrokenEnvironment

FIX = "install both from one place: pip install --force-reinstall torch torchvision timm"


def check_environment() -> None:
    """BrokenEnvironment, in one line with the mend, where torchvision can not be imported with this torch
    (as a CPU-only torch beside a CUDA torchvision)."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BrokenEnvironment(
            f"torchvision {_version('torchvision')} can not be imported with torch {_version('torch')} "
            f"({reason}); {FIX}"
        ) from None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
