"""Fixtures of the hostile runs: one dataset, a well-behaved run to compare with, and every sandbox in turn."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bystanders import Bystanders
from hostile_runs import Hostile, Sandbox
from sandboxes import skip_without
from synthetic import write_meta_album

ONE_SANDBOX = {
    "test_hostile_channel": "landlock",
    "test_hostile_hoards": "bubblewrap",
    "test_hostile_processes": "landlock",
    "test_hostile_results": "bubblewrap",
}
"""What takes long runs in one sandbox, and in both with `--all-extras`."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the other sandbox. Tests that look at the same run go to the same worker."""
    for item in items:
        if item.path.parent == Path(__file__).parent and hasattr(item, "callspec"):
            group = f"{item.path.stem}-{item.callspec.params.get('sandbox', '')}"
            item.add_marker(pytest.mark.xdist_group(group))
    if config.option.all_extras:
        return
    left_out = [item for item in items if _is_of_the_other(item)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _is_of_the_other(item: pytest.Item) -> bool:
    chosen = ONE_SANDBOX.get(item.path.stem)
    given = item.callspec.params.get("sandbox") if hasattr(item, "callspec") else None
    return chosen is not None and given is not None and given != chosen


@pytest.fixture(scope="session")
def hostile_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_meta_album(tmp_path_factory.mktemp("hostile-data") / "SET", [9] * 8)


@pytest.fixture(scope="session", params=["bubblewrap", "landlock"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """Each sandbox in turn. Where the machine has it, it must work: the test is skipped only where it has not."""
    choice: Sandbox = request.param
    skip_without(choice)
    return choice


@pytest.fixture(scope="session")
def usual(hostile_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[float]]:
    """The predictions of the same submission without an attack."""
    run = Hostile(hostile_dataset, tmp_path_factory.mktemp("usual"), "none")
    assert not run.run({}, {}).failures
    return run.predictions()


@pytest.fixture
def hostile(hostile_dataset: Path, tmp_path: Path, sandbox: Sandbox) -> Hostile:
    return Hostile(hostile_dataset, tmp_path, sandbox)


@pytest.fixture(scope="session")
def bystanders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Bystanders]]:
    """Starts programs of others that the submission must not touch; they end with the tests."""
    started: list[Bystanders] = []

    def start() -> Bystanders:
        started.append(Bystanders(tmp_path_factory.mktemp("bystanders")))
        return started[-1]

    yield start
    for each in started:
        each.close()
        shutil.rmtree(each.folder)
