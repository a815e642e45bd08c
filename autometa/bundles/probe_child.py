"""Import a bundle's `model.py` and look at its classes: a script for a process of its own, since this runs the code
of the bundle. Arguments: the folder of the bundle, the file for the findings."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import traceback
from pathlib import Path
from types import ModuleType

CALLS = {
    "MyMetaLearner": ("MetaLearner", {"__init__": 3, "meta_fit": 2}),
    "MyLearner": ("Learner", {"__init__": 0, "fit": 1, "save": 1, "load": 1}),
    "MyPredictor": ("Predictor", {"predict": 1}),
}
"""The base class of each class, and how many arguments its methods get after `self`."""


def check(bundle: Path) -> list[dict[str, str]]:
    """What is wrong, as `where` and `text`."""
    sys.path.insert(0, str(bundle))
    try:
        if not (bundle / "api.py").exists():
            sys.modules["api"] = importlib.import_module("ingestion.api")
        model, api = importlib.import_module("model"), importlib.import_module("api")
    except BaseException as problem:  # noqa: BLE001 - code of others: whatever it raises is the finding
        return [{"where": _place(problem, bundle), "text": f"cannot be imported: {_describe(problem)}"}]
    return [finding for name in CALLS if hasattr(model, name) for finding in _check_class(model, api, name)]


def _check_class(model: ModuleType, api: ModuleType, name: str) -> list[dict[str, str]]:
    cls, (base, calls) = getattr(model, name), CALLS[name]
    if not isinstance(cls, type) or not issubclass(cls, getattr(api, base)):
        return [{"where": "model.py", "text": f"{name} does not derive from {base} of api"}]
    found = []
    if left := sorted(getattr(cls, "__abstractmethods__", ())):
        found.append(f"{name} lacks the method {', '.join(left)}")
    for method, arguments in calls.items():
        try:
            inspect.signature(getattr(cls, method)).bind(None, *[None] * arguments)
        except TypeError as problem:
            found.append(f"{name}.{method} is called with {arguments} arguments after self: {problem}")
    return [{"where": "model.py", "text": text} for text in found]


def _place(problem: BaseException, bundle: Path) -> str:
    """The last line of the bundle that led to the problem."""
    for frame in reversed(traceback.extract_tb(problem.__traceback__)):
        if Path(frame.filename).is_relative_to(bundle):
            return f"{Path(frame.filename).relative_to(bundle)}:{frame.lineno}"
    return "model.py"


def _describe(problem: BaseException) -> str:
    return traceback.format_exception_only(problem)[-1].strip()[:500]


if __name__ == "__main__":
    findings = check(Path(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(findings), encoding="utf-8")
