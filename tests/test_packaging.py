"""What a wheel holds: every package, every file of the baselines, the demo, and marks of types."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import run_local

ROOT = Path(__file__).parents[1]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
DATA: dict[str, list[str]] = SETUP["package-data"]


def packaged(package: str) -> set[Path]:
    folder = ROOT / SETUP["package-dir"].get(package, package.replace(".", "/"))
    return {path for pattern in DATA[package] for path in folder.glob(pattern) if path.is_file()}


def test_every_package_is_listed() -> None:
    tops = ("autometa", "ingestion", "scoring")
    found = {
        ".".join(i.parent.relative_to(ROOT).parts) for top in tops for i in (ROOT / top).rglob("__init__.py")
    }
    assert set(SETUP["packages"]) == found | set(SETUP["package-dir"])


@pytest.mark.parametrize("package", ["autometa.shipped.baselines", "autometa.shipped.demo"])
def test_every_file_of_baselines_and_demo_is_shipped(package: str) -> None:
    folder = ROOT / SETUP["package-dir"][package]
    files = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert files and files == {path for path in packaged(package) if "__pycache__" not in path.parts}


@pytest.mark.parametrize("package", ["autometa", "ingestion", "scoring"])
def test_packages_say_that_they_have_types_and_ship_their_data(package: str) -> None:
    data = {
        path for path in (ROOT / package).rglob("*") if path.suffix not in (".py", ".pyc") and path.is_file()
    }
    assert ROOT / package / "py.typed" in data
    own = [name for name in SETUP["package-data"] if "shipped" not in name]
    within = [name for name in own if f"{name}.".startswith(f"{package}.")]
    assert data == {path for name in within for path in packaged(name)}


def test_a_checkout_uses_its_own_baselines_and_demo() -> None:
    assert run_local.BASELINES == ROOT / "baselines"
    assert run_local.DEMO == ROOT / "examples" / "demo"
