"""`model.py` of a bundle, read without running it: what is certain to fail is told before the run starts."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingestion.errors import InputError

MODEL_FILE = "model.py"
MOST_READ_BYTES = 2**20
"""A larger file is not looked at, since that takes time."""
NEEDED = ("MyMetaLearner", "MyLearner")
"""What ingestion imports; a predictor may have any name."""
METHODS = {
    "MyMetaLearner": {"__init__": 3, "meta_fit": 2},
    "MyLearner": {"__init__": 0, "fit": 1, "save": 1, "load": 1},
    "MyPredictor": {"predict": 1},
}
"""The methods of the format, and how many arguments each gets after `self`."""
DYNAMIC = frozenset({"globals", "locals", "vars", "exec", "setattr", "__getattr__"})
"""Where a file has one of these names, it may define more than is seen."""


@dataclass(frozen=True)
class Trouble:
    """What is wrong, and on which line (0: none)."""

    text: str
    line: int = 0

    @property
    def where(self) -> str:
        """The file with the line, as editors take it."""
        return f"{MODEL_FILE}:{self.line}" if self.line else MODEL_FILE


def check_model(folder: Path) -> None:
    """Read the `model.py` of a bundle's folder. InputError with the line and the fix where it is no Python, or
    certainly lacks a class that the format needs, or a method takes other arguments. What it cannot be sure of, the
    import finds."""
    file = folder / MODEL_FILE
    try:
        source = file.read_bytes()
    except OSError as error:
        raise InputError(f"submission {file}: cannot be read ({error.strerror})") from error
    if len(source) > MOST_READ_BYTES:
        return
    tree = parse_python(source)
    for trouble in [tree] if isinstance(tree, Trouble) else _find_troubles(tree, folder):
        line = f", line {trouble.line}" if trouble.line else ""
        raise InputError(f"submission {file}{line}: {trouble.text}")


def _find_troubles(tree: ast.Module, folder: Path) -> list[Trouble]:
    own_api = (folder / "api.py").exists()  # its classes may have methods
    return [*missing_classes(tree), *wrong_methods(tree), *([] if own_api else missing_methods(tree))]


def parse_python(source: bytes) -> ast.Module | Trouble:
    """The syntax tree of a Python file, or why it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as one on an escape that means nothing
            return ast.parse(source)
    except SyntaxError as error:
        if "codec can't decode" in error.msg or "encoding problem" in error.msg:
            return Trouble(f"is no Python: {error.msg}; save it as UTF-8", error.lineno or 0)
        return Trouble(f"is no Python: {error.msg}; correct it", error.lineno or 0)
    except ValueError as error:
        return Trouble(f"is no Python: {error}; save it as text")
    except (RecursionError, MemoryError):
        return Trouble("is no Python that can be read: expressions are nested too deeply; split them")


def missing_classes(model: ast.Module) -> list[Trouble]:
    """Classes that the format needs and that `model.py` certainly does not have."""
    if any(isinstance(node, ast.Name) and node.id in DYNAMIC for node in ast.walk(model)):
        return []
    bound = [name for node in _statements(model) for name in _names_bound(node)]
    if "*" in bound or "__getattr__" in bound:
        return []
    needed = " and ".join(NEEDED)
    return [
        Trouble(f"defines no class {name}; the format needs {needed}") for name in NEEDED if name not in bound
    ]


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """All statements of a module that run when it is imported, those within `if`, `try` and the like too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.expr)):
            yield from _statements(child)


def _names_bound(node: ast.stmt) -> Iterator[str]:
    """Names that a statement gives: a definition, an import, an assignment."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield node.name
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    else:
        yield from (
            each.id
            for each in ast.walk(node)
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
        )


def wrong_methods(model: ast.Module) -> list[Trouble]:
    """Methods that cannot be called as the format does."""
    found = []
    for owner, methods in METHODS.items():
        same = [node for node in model.body if isinstance(node, ast.ClassDef) and node.name == owner]
        if len(same) != 1 or same[0].decorator_list:
            continue
        defined = {node.name: node for node in same[0].body if isinstance(node, ast.FunctionDef)}
        found += [
            trouble
            for name, wanted in methods.items()
            if name in defined and (trouble := _wrong_arguments(owner, defined[name], wanted))
        ]
    return found


def missing_methods(model: ast.Module) -> list[Trouble]:
    """Methods that a class certainly lacks, where `api` is that of the format: it derives from the abstract class
    there alone, and its body only defines functions and the like."""
    taken = {
        alias.name
        for node in model.body
        if isinstance(node, ast.ImportFrom) and node.module == "api"
        for alias in node.names
        if alias.asname is None
    }
    found = []
    for owner in NEEDED:  # a predictor may be anything
        methods, base = METHODS[owner], owner.removeprefix("My")
        same = [node for node in model.body if isinstance(node, ast.ClassDef) and node.name == owner]
        if len(same) != 1 or base not in taken or not _derives_only(same[0], base):
            continue
        defined = {node.name for node in same[0].body if isinstance(node, ast.FunctionDef)}
        found += [
            Trouble(f"{owner} lacks the method {name}", same[0].lineno)
            for name in methods
            if name not in {*defined, "__init__"}
        ]
    return found


def _derives_only(node: ast.ClassDef, base: str) -> bool:
    bases = [each.id if isinstance(each, ast.Name) else "" for each in node.bases]
    plain = all(isinstance(each, (ast.FunctionDef, ast.Expr, ast.Pass)) for each in node.body)
    return plain and bases == [base] and not node.keywords and not node.decorator_list


def _wrong_arguments(owner: str, node: ast.FunctionDef, wanted: int) -> Trouble | None:
    if node.decorator_list:
        return None
    args = node.args
    positional = len(args.posonlyargs) + len(args.args) - 1  # without self
    least = positional - min(len(args.defaults), max(positional, 0))
    needs_keywords = any(default is None for default in args.kw_defaults)
    if least <= wanted and (positional >= wanted or args.vararg is not None) and not needs_keywords:
        return None
    called = f"{owner}.{node.name} is called with {wanted} argument{'s' * (wanted != 1)} after self"
    takes = f"it takes {least}" if least == positional else f"it takes {least} to {positional}"
    if positional < 0:
        takes = "it lacks self"
    elif needs_keywords:
        takes += ", and arguments with names"
    return Trouble(f"{called}; {takes}", node.lineno)
