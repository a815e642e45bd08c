"""What the image of a competition has installed, and what each distribution needs."""

from __future__ import annotations

import importlib.metadata
import re

BARE_PACKAGES = ("torch", "torchvision", "timm")
"""What any machine for this task has."""
IMAGE_PACKAGES = (
    *BARE_PACKAGES, "click", "jinja2", "matplotlib", "numpy", "nvidia-ml-py", "optuna", "pillow", "psutil",
    "pydantic", "pyyaml", "safetensors", "scikit-learn", "scipy",
)  # fmt: skip
"""What the Dockerfile of a competition installs: what the two programs import, and what submissions often want."""


def canonical(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: tuple[str, ...]) -> frozenset[str]:
    """These distributions and all that they need, as far as they are installed here."""
    found: set[str] = set()
    left = [canonical(name) for name in names]
    while left:
        name = left.pop()
        if name in found:
            continue
        try:
            left += needs_of(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
    return frozenset(found)


def needs_of(name: str) -> list[str]:
    """What an installed distribution asks for, without its extras. PackageNotFoundError where it is not installed."""
    needed = importlib.metadata.requires(name) or []
    return [_name_of(each) for each in needed if "extra ==" not in each]


def distributions_of(module: str) -> frozenset[str]:
    """The installed distributions that a top-level module comes with."""
    return frozenset(map(canonical, importlib.metadata.packages_distributions().get(module, ())))


def _name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return canonical(match[0])
