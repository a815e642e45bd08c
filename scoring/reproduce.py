"""How to run the same again: options of `run_local.py` and versions, from what a run has recorded, without paths."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scoring.errors import UnreadableFileError
from scoring.files import read_bytes
from scoring.text import one_line

PROGRAM = "python -m run_local"
PACKAGES = (
    "autometa",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scikit-learn",
    "optuna",
    "pillow",
    "onnxruntime",
    "openvino",
)
_WORD = re.compile(r"[\w.+@-]{1,100}")
_VERSION = re.compile(r"([A-Za-z0-9._-]{1,60})==([A-Za-z0-9.+!_-]{1,60})")
_MAX_BYTES = 2**20
_FINGERPRINTS = (("dataset", "dataset"), ("submission", "bundle"))
_SIMPLE = {
    "--submission": "submission",
    "--memory-budget": "memory_budget_bytes",
    "--gpu-memory-budget": "gpu_memory_budget_bytes",
    "--image-size": "image_size",
    "--image-shape": "image_shape",
    "--seed": "seed",
    "--protocol": "protocol",
    "--sandbox": "sandbox",
}


def recorded_options(content: Mapping[str, Any]) -> dict[str, str]:
    """Options by name, from the content of `ingestion.json`; what is missing or no plain word is left out. Switches
    have no value."""
    found: dict[str, object] = {"--time-budget": _seconds(content.get("time_budget_s"))}
    found |= {option: content.get(key) for option, key in _SIMPLE.items()}
    form = content.get("test_config")
    if isinstance(form, dict):
        found["--ways"] = _range(form, "N")
        found["--shots"] = _range(form, "k")
        found["--query-per-class"] = form.get("query_images_per_class")
    if content.get("sandbox_asked") == "strict":
        found["--sandbox"] = "strict"
    words = {option: str(value) for option, value in found.items() if isinstance(value, str | int)}
    switches = {"--isolate-tasks": ""} if content.get("isolate_tasks") is True else {}
    return {option: word for option, word in words.items() if _WORD.fullmatch(word)} | switches


def command_line(options: Mapping[str, str]) -> str:
    """The command with these options, one a line; empty if there are none."""
    if not options:
        return ""
    lines = [f"{name} {shlex.quote(value)}" if value else name for name, value in options.items()]
    return " \\\n  ".join([f"{PROGRAM} --dataset DIR", *lines])


def read_versions(results_dir: Path) -> list[tuple[str, str]]:
    """Packages that matter and their versions, from `logs/environment.txt`; a submission may have changed it."""
    try:
        text = read_bytes(results_dir / "logs" / "environment.txt", _MAX_BYTES).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError, UnreadableFileError):
        return []
    matches = filter(None, map(_VERSION.fullmatch, text.splitlines()))
    versions = {match[1].lower().replace("_", "-"): match[2] for match in matches}
    return [(name, versions[name]) for name in PACKAGES if name in versions]


def read_fingerprints(results_dir: Path) -> list[tuple[str, str]]:
    """Names and digests of the dataset and the submission, from `run.json`; those that are missing are left out."""
    try:
        content = json.loads(read_bytes(results_dir / "run.json", _MAX_BYTES))
    except (FileNotFoundError, UnreadableFileError, RecursionError, ValueError):
        return []
    found = [(title, content.get(key)) for title, key in _FINGERPRINTS] if isinstance(content, dict) else []
    return [(title, one_line(text, 120)) for title, text in found if isinstance(text, str)]


def _seconds(value: object) -> str | None:
    if not isinstance(value, int | float) or not 0 < value < 1e9:
        return None
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"


def _range(form: Mapping[str, Any], name: str) -> str | None:
    fixed, low, high = (form.get(key) for key in (name, f"min_{name}", f"max_{name}"))
    if fixed is not None:
        return f"{fixed}-{fixed}"
    return None if low is None or high is None else f"{low}-{high}"
