"""Who may import whom: read from the syntax trees, so that a wrong import is found without running it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from autometa.bundles.vendored import ROOMS

ROOT = Path(__file__).parents[1]

PACKAGES = [
    "core",
    "executors",
    "data",
    "backbones",
    "heads",
    "evaluation",
    "learners",
    "planning",
    "model",
    "search",
    "systems",
]
"""In the order of the data: a package of autometa imports only from itself and from those before it."""

ON_TOP = {"__init__", "__main__", "display", "submission"}
"""Modules that lie directly in `autometa`; packages import none of them."""

PRODUCT = ["classifier", "bundles", "papers", "tuning", "judging", "cli"]
"""What people use: packages on top of everything, also of `ingestion` and `scoring`. In order, as above."""

PROGRAM = "__main__.py"
"""What `python -m` runs: in any package, it may import from all."""

DOORS = {
    "timm": {"autometa/backbones"},
    "optuna": {"autometa/search/study.py"},
    "psutil": {"autometa/core/budget.py", "ingestion/watch.py", "ingestion/process.py"},
    "yaml": {"autometa/core/settings.py", "scoring"},
    "rich": {"autometa/display.py", "autometa/cli/output.py"},
    "safetensors": {"autometa/core/files.py"},
    "ray": {"autometa/executors/ray_cluster.py"},
    "gradio": {"autometa/classifier/playground.py"},
    "PIL": {"ingestion/formats.py", "ingestion/loose_images.py", "ingestion/pixels.py"},
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


def test_a_bundle_of_autometa_has_all_packages() -> None:
    assert tuple(PACKAGES) == ROOMS


def test_autometa_consists_of_these_packages_and_modules() -> None:
    found = [path for path in (ROOT / "autometa").iterdir() if not path.name.startswith("__pycache__")]
    assert {path.name for path in found if path.is_dir()} == {*PACKAGES, *PRODUCT}
    assert {path.stem for path in found if path.suffix == ".py"} == ON_TOP
    assert len(PACKAGES) <= 11 and len(ON_TOP) <= 6


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_from_those_before_it(package: str) -> None:
    before = {f"autometa.{name}" for name in PACKAGES[: PACKAGES.index(package) + 1]}
    for file in sources(f"autometa/{package}"):
        program = file == ROOT / "autometa" / package / PROGRAM
        allowed = before | ({f"autometa.{name}" for name in PRODUCT} if program else set())
        for name in imports(file):
            top, *rest = name.split(".")
            assert top not in {"ingestion", "scoring", "baselines", "run_local"}, f"{file} imports {name}"
            assert top != "autometa" or f"autometa.{rest[0]}" in allowed, f"{file} imports {name}"


@pytest.mark.parametrize("package", PRODUCT)
def test_a_package_of_the_product_imports_only_from_those_before_it(package: str) -> None:
    after = {f"autometa.{name}" for name in PRODUCT[PRODUCT.index(package) + 1 :]} | {"baselines"}
    for file in sources(f"autometa/{package}"):
        for name in imports(file):
            assert not any(name == one or name.startswith(f"{one}.") for one in after), (
                f"{file} imports {name}"
            )


@pytest.mark.parametrize(("package", "forbidden"), [
    ("ingestion", {"autometa", "scoring", "baselines"}),
    ("scoring", {"autometa", "ingestion", "baselines"}),
    ("baselines", {"ingestion", "scoring"}),
])  # fmt: skip
def test_programs_meet_only_through_files(package: str, forbidden: set[str]) -> None:
    for file in sources(package):
        tops = {name.partition(".")[0] for name in imports(file)}
        assert tops.isdisjoint(forbidden), f"{file}: {tops & forbidden}"


@pytest.mark.medium
@pytest.mark.parametrize("dependency", DOORS)
def test_a_dependency_has_one_door(dependency: str) -> None:
    for package in ("autometa", "ingestion", "scoring"):
        for file in sources(package):
            if dependency in {name.partition(".")[0] for name in imports(file)}:
                place = str(file.relative_to(ROOT))
                assert any(place.startswith(door) for door in DOORS[dependency]), (
                    f"{place} imports {dependency}"
                )


def test_images_are_opened_in_one_place() -> None:
    """So that examples and benchmarks see the pixels of a run. One loader is another's, to compare with; photos are
    made for a benchmark; the demo is made of drawings."""
    exceptions = {"benchmarks/_learner_data.py", "benchmarks/_photos.py"}
    files = [file for folder in ("examples", "benchmarks") for file in sources(folder)]
    assert {str(file.relative_to(ROOT)) for file in files if "PIL" in imports(file)} == exceptions


@pytest.mark.medium
def test_no_pickle_and_no_bare_except() -> None:
    for package in ("autometa", "ingestion", "scoring", "baselines"):
        for file in sources(package):
            assert "pickle" not in imports(file), file
            handlers = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ExceptHandler)]
            assert all(h.type is not None for h in handlers), file


UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.mark.medium
@pytest.mark.parametrize("package", ["autometa", "ingestion", "scoring"])
def test_nothing_is_unpickled_outside_a_submission(package: str) -> None:
    """Files of others may hold pickles, which run code when they are opened: `torch.load` has to keep to weights, and
    numpy must not open them. A submission may, in its own process and sandbox."""
    for file in sources(package):
        tree = ast.parse(file.read_text())
        assert UNPICKLERS.isdisjoint(name.partition(".")[0] for name in imports(file)), file
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            named = {keyword.arg: keyword.value for keyword in call.keywords}
            where = f"{file.relative_to(ROOT)}:{call.lineno}"
            called = ast.unparse(call.func)
            if called in {"torch.load", "torch.hub.load", "torch.jit.load"}:
                value = named.get("weights_only")
                assert isinstance(value, ast.Constant) and value.value is True, where
            if called in {"np.load", "numpy.load"}:
                value = named.get("allow_pickle")
                assert value is None or (isinstance(value, ast.Constant) and value.value is False), where
            assert called not in {"np.fromregex", "pd.read_pickle", "pandas.read_pickle"}, where
            assert called not in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}, where


@pytest.mark.medium
def test_the_test_of_unpickling_sees_a_load_that_is_not_safe() -> None:
    loads = [
        node
        for file in sources("autometa")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert loads, "weights of packages are read by it"
