"""SECURITY.md: what it promises has tests, and no code reads what is not trusted by running it."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from autometa.backbones.weights import _map_checkpoint

ROOT = Path(__file__).resolve().parent.parent
POLICY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
"""Modules that run what a file says while they read it."""
PACKAGES = ("autometa", "ingestion", "scoring")


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield file.relative_to(ROOT), ast.parse(file.read_text(encoding="utf-8"))


def test_every_promise_names_tests_that_are_there() -> None:
    rows = re.findall(r"^\| .+ \| (`[^|]+`) \|$", POLICY, re.MULTILINE)
    assert len(rows) >= 10
    for row in rows:
        for name in re.findall(r"`([^`]+)`", row):
            file = ROOT / "tests" / name
            assert file.is_file() and "\ndef test_" in file.read_text(encoding="utf-8"), name


@pytest.mark.medium
def test_nothing_is_unpickled_or_run() -> None:
    for file, tree in sources():
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            assert not {name.partition(".")[0] for name in modules} & RUNS_CODE, f"{file} imports {modules}"
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "yaml.load", "yaml.unsafe_load"), f"{file}: {called}"
                words = {each.arg: ast.unparse(each.value) for each in node.keywords}
                assert words.get("allow_pickle", "False") == "False", f"{file}: {called}"
                if called == "torch.load":
                    assert words.get("weights_only") == "True", f"{file}: {called}"


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return Path.mkdir, (self.place,)


def test_weights_that_are_a_program_are_not_run(tmp_path: Path) -> None:
    torch.save({"weight": Trap(tmp_path / "trapped")}, tmp_path / "weights.pth")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        _map_checkpoint(tmp_path / "weights.pth")
    assert not (tmp_path / "trapped").exists()
