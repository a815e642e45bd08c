"""What comes with this project: baselines, the demo and the packages of the programs."""

from __future__ import annotations

import difflib
from pathlib import Path

from autometa.bundles.errors import BundleError

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder of `autometa`."""
ROOT = PACKAGE.parent
_INSTALLED = PACKAGE / "shipped"
BASELINES = _INSTALLED / "baselines" if _INSTALLED.is_dir() else ROOT / "baselines"
DEMO = _INSTALLED / "demo" if _INSTALLED.is_dir() else ROOT / "examples" / "demo"


def list_baselines() -> list[str]:
    """The names of the bundles that come with autometa."""
    return sorted(file.parent.name for file in BASELINES.glob("*/model.py"))


def find_bundle(name: str, where: str = "bundle") -> Path:
    """A bundle by path, or a baseline by name. BundleError names what was given (`where`) and the baselines."""
    baselines = list_baselines()
    try:
        if name in baselines and not (Path(name) / "model.py").exists():
            return BASELINES / name
        if Path(name).exists():
            return Path(name)
    except OSError as error:
        raise BundleError(
            f"{where} {name[:60]}: cannot be opened ({error.strerror}); correct the path"
        ) from error
    near = difflib.get_close_matches(name, baselines, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise BundleError(
        f"{where} {name}: no such file or folder, and no baseline; {meant}baselines: {', '.join(baselines)}"
    )
