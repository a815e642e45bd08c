"""Who may import whom: read from the syntax trees, so that a wrong import is found without running it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS: list[set[str]] = [
    {"errors"},
    {"config", "budget", "episodes", "environment", "display", "feature_files", "journals", "speed"},
    {"backbones"},
    {"features", "heads", "planning"},
    {"evaluation", "artifact"},
    {"ensemble", "bench", "pool", "learners", "pace", "stages", "study"},
    {"trained_ensemble"},
    {"trained_members"},
    {"learner"},
    {"forecast", "outcomes", "priors", "ranking", "resume", "saved"},
    {"search", "tuning", "leaders", "families", "family_training"},
    {"tuner"},
    {"family_trials"},
    {"selection"},
    {"trials"},
    {"finish", "keeper"},
    {"controller", "meta_training", "systems"},
    {"submission"},
]
"""Lowest first: a module of autometa imports only from layers below, or from its own package."""

DOORS = {
    "timm": {"autometa/backbones"},
    "optuna": {"autometa/study.py"},
    "psutil": {"autometa/budget.py", "ingestion/watch.py", "ingestion/process.py"},
    "yaml": {"autometa/config.py", "scoring"},
    "rich": {"autometa/display.py"},
    "safetensors": {"autometa/artifact.py"},
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module)
    return found


def module_of(file: Path) -> str:
    return file.relative_to(ROOT / "autometa").parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", sources("autometa"), ids=lambda f: str(f.relative_to(ROOT)))
def test_autometa_imports_only_downwards(file: Path) -> None:
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    own = module_of(file)
    if own == "__init__":
        return
    for name in imports(file):
        top, _, rest = name.partition(".")
        assert top not in {"ingestion", "scoring", "baselines", "run_local"}, f"{file} imports {name}"
        if top == "autometa":
            other = rest.split(".")[0]
            assert other == own or level[other] < level[own], f"{file} imports {name}"


@pytest.mark.parametrize(("package", "forbidden"), [
    ("ingestion", {"autometa", "scoring", "baselines"}),
    ("scoring", {"autometa", "ingestion", "baselines"}),
    ("baselines", {"ingestion", "scoring"}),
])  # fmt: skip
def test_programs_meet_only_through_files(package: str, forbidden: set[str]) -> None:
    for file in sources(package):
        tops = {name.partition(".")[0] for name in imports(file)}
        assert tops.isdisjoint(forbidden), f"{file}: {tops & forbidden}"


@pytest.mark.parametrize("dependency", DOORS)
def test_a_dependency_has_one_door(dependency: str) -> None:
    for package in ("autometa", "ingestion", "scoring"):
        for file in sources(package):
            if dependency in {name.partition(".")[0] for name in imports(file)}:
                place = str(file.relative_to(ROOT))
                assert any(place.startswith(door) for door in DOORS[dependency]), (
                    f"{place} imports {dependency}"
                )


def test_no_pickle_and_no_bare_except() -> None:
    for package in ("autometa", "ingestion", "scoring", "baselines"):
        for file in sources(package):
            assert "pickle" not in imports(file), file
            handlers = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ExceptHandler)]
            assert all(h.type is not None for h in handlers), file
