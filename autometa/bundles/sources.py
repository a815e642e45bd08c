"""Reading the Python files of a bundle without running them: classes, methods, imports."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autometa.bundles.files import BundleFile
from autometa.bundles.findings import Finding, error, warning
from autometa.bundles.image import IMAGE_PACKAGES, closure, distributions_of
from ingestion.model_file import Trouble, missing_classes, parse_python, wrong_methods

OURS = frozenset({"autometa", "api"})
NOT_THERE = frozenset({"ingestion", "scoring", "baselines", "run_local"})
"""Ours too, but no submission can rely on them."""


@dataclass(frozen=True)
class Import:
    """An import of a top-level module. `guarded`: it is in a function or a `try`, so the bundle may do without."""

    module: str
    where: str
    guarded: bool


def parse(files: Sequence[BundleFile]) -> tuple[dict[str, ast.Module], list[Finding]]:
    """The syntax tree of each Python file, and the files that have none."""
    trees: dict[str, ast.Module] = {}
    findings = []
    for file in files:
        if file.name.endswith(".py"):
            tree = parse_python(file.path.read_bytes())
            if isinstance(tree, Trouble):
                line = f":{tree.line}" if tree.line else ""
                findings.append(error(f"{file.name}{line}", tree.text))
            else:
                trees[file.name] = tree
    return trees, findings


def check_classes(model: ast.Module) -> list[Finding]:
    """Whether `model.py` defines the classes of the format, with methods that take the right number of arguments."""
    return [error(each.where, each.text) for each in (*missing_classes(model), *wrong_methods(model))]


def find_imports(trees: dict[str, ast.Module], files: Sequence[BundleFile] = ()) -> list[Import]:
    """Every import of a module that is neither Python's own nor lies in the bundle: at its root, in a folder that its
    code may put on the path, or as an extension module among its `files`."""
    own = [*trees, *(file.name for file in files if file.name.endswith((".so", ".pyd")))]
    local = {part.partition(".")[0] for path in own for part in path.split("/")}
    found = []
    for file, tree in trees.items():
        for node, guarded in _imports(tree, guarded=False):
            names = (
                [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            )
            tops = {name.partition(".")[0] for name in names if name}
            found += [
                Import(top, f"{file}:{node.lineno}", guarded)
                for top in sorted(tops - local - {"__main__"} - set(sys.stdlib_module_names))
            ]
    return found


def _imports(node: ast.AST, *, guarded: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import) or (isinstance(child, ast.ImportFrom) and not child.level):
            yield child, guarded
        else:
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.Try))
            yield from _imports(child, guarded=guarded or inside or _is_for_types(child))


def _is_for_types(node: ast.AST) -> bool:
    """Whether this is `if TYPE_CHECKING:`."""
    test = node.test if isinstance(node, ast.If) else None
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def check_imports(imports: Sequence[Import]) -> list[Finding]:
    """Modules that are not installed here, and those that the image of a competition does not have."""
    findings = []
    in_image = closure(IMAGE_PACKAGES)
    for each in imports:
        if each.module in OURS:
            continue
        if each.module in NOT_THERE:
            findings.append(error(each.where, f"imports `{each.module}`, which submissions do not have"))
        elif importlib.util.find_spec(each.module) is None:
            found = warning if each.guarded else error
            findings.append(
                found(
                    each.where,
                    f"imports `{each.module}`, which is not installed here; install it, or put it into the bundle",
                )
            )
        elif distributions_of(each.module).isdisjoint(in_image):
            findings.append(
                warning(
                    each.where,
                    f"imports `{each.module}`, which the image of a competition may lack; put it into the bundle",
                )
            )
    return findings
