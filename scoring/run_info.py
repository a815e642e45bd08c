"""Information about a run: `metadata_ingestion`, `ingestion.json` and `stages.json` of the submission.

All files are optional and have no effect on scores: a missing or malformed one becomes a note, never an error.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from scoring.errors import UnreadableFileError
from scoring.files import read_bytes
from scoring.reproduce import recorded_options
from scoring.stage_times import StageTime, read_stage_times
from scoring.text import display, one_line

_MAX_BYTES = 8 * 2**20
_MAX_ITEMS = 10_000
_LARGEST = 1e18
_FACTS = ("submission", "protocol", "seed", "sandbox", "confinement")
_FACT_LENGTH = 600


@dataclass(frozen=True)
class RunInfo:
    """Information about one ingestion run; None or empty if unknown. Times in seconds: `stages` as ingestion
    measured them, `stage_times` as the submission reports them. `options`: those that reproduce the run, as one gives
    them to `run_local.py`; `peaks`: the most memory that each phase used, in bytes."""

    duration_s: float | None = None
    meta_train_s: float | None = None
    meta_test_s: float | None = None
    datasets: float | None = None
    tasks_per_dataset: float | None = None
    time_budget_s: float | None = None
    memory_budget_bytes: float | None = None
    peaks: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    set_aside: tuple[str, ...] = ()
    stages: tuple[tuple[str, float], ...] = ()
    stage_times: tuple[StageTime, ...] = ()
    notes: tuple[str, ...] = ()


def read_run_info(results_dir: Path) -> RunInfo:
    """Read the files in `results_dir`; `notes` say what is missing or unusable."""
    times, time_notes = _read_metadata(results_dir / "metadata_ingestion")
    info, info_notes = _read_ingestion(results_dir / "ingestion.json")
    stage_times, stage_notes = read_stage_times(results_dir, times.get("Meta-test time"))
    per_dataset = times.get("Tasks per dataset")
    options = {"--tasks-per-dataset": f"{per_dataset:.0f}"} if info.options and per_dataset else {}
    return replace(
        info,
        duration_s=times.get("Total execution time"),
        meta_train_s=times.get("Meta-train time"),
        meta_test_s=times.get("Meta-test time"),
        datasets=times.get("Number of test datasets"),
        tasks_per_dataset=per_dataset,
        options={**info.options, **options},
        peaks=_read_peaks(results_dir / "memory.json"),
        stage_times=stage_times,
        notes=(*info.notes, *time_notes, *info_notes, *stage_notes),
    )


def _read_metadata(path: Path) -> tuple[dict[str, float | None], list[str]]:
    try:
        content = yaml.safe_load(read_bytes(path, _MAX_BYTES))
    except FileNotFoundError:
        return {}, [f"{path.name} is missing: the duration is unknown"]
    except UnreadableFileError as error:
        return {}, [f"{path.name} {error}: ignored"]
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError) as error:
        # of values that are not what they are marked as, PyYAML raises what Python does
        return {}, [f"{path.name} is not YAML: ignored ({one_line(str(error))})"]
    if not isinstance(content, dict):
        return {}, [f"{path.name} does not hold keys and values: ignored"]
    return {key: _number(value) for key, value in content.items() if isinstance(key, str)}, []


def _read_ingestion(path: Path) -> tuple[RunInfo, list[str]]:
    try:
        content = json.loads(read_bytes(path, _MAX_BYTES))
    except FileNotFoundError:
        return RunInfo(), []
    except UnreadableFileError as error:
        return RunInfo(), [f"{path.name} {error}: ignored"]
    except (RecursionError, ValueError) as error:
        return RunInfo(), [f"{path.name} is not JSON: ignored ({one_line(str(error))})"]
    if not isinstance(content, dict):
        return RunInfo(), [f"{path.name} is not an object: ignored"]
    return _from_json(content), []


def _read_peaks(path: Path) -> dict[str, float]:
    """Peaks of memory by phase; none if the file is missing or unusable, since they are only shown."""
    try:
        content = json.loads(read_bytes(path, _MAX_BYTES))
    except (FileNotFoundError, UnreadableFileError, RecursionError, ValueError):
        return {}
    peaks = {one_line(key): _number(value) for key, value in _items(content)[:10]}
    return {key: value for key, value in peaks.items() if value is not None}


def _from_json(content: dict[str, Any]) -> RunInfo:
    failures = {
        int(key): display(_words(value))
        for key, value in _items(content.get("failures"))
        if key.isascii() and key.isdigit() and len(key) < 12
    }
    facts = {
        key: one_line(_words(content[key]), _FACT_LENGTH) for key in _FACTS if content.get(key) is not None
    }
    return RunInfo(
        time_budget_s=_number(content.get("time_budget_s")),
        memory_budget_bytes=_number(content.get("memory_budget_bytes")),
        options=recorded_options(content),
        failures=failures,
        facts=facts,
        machine={one_line(key): one_line(_words(value)) for key, value in _items(content.get("machine"))},
        set_aside=_lines(content.get("set_aside")),
        stages=_stages(content.get("stages")),
        notes=_lines(content.get("notes")),
    )


def _items(value: object) -> list[tuple[str, object]]:
    if not isinstance(value, dict):
        return []
    return [(str(key), content) for key, content in value.items() if content is not None][:_MAX_ITEMS]


def _lines(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    entries = value if isinstance(value, list) else [value]
    return tuple(display(_words(entry)) for entry in entries[:_MAX_ITEMS])


def _stages(value: object) -> tuple[tuple[str, float], ...]:
    rows = [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
    timed = [(one_line(_words(row.get("name", "?"))), _number(row.get("seconds"))) for row in rows]
    return tuple((name, seconds) for name, seconds in timed[:_MAX_ITEMS] if seconds is not None)


def _words(value: object, depth: int = 4) -> str:
    """Write any JSON value for people: "cores: 4, device: cpu" without braces and quotes."""
    if isinstance(value, dict | list) and depth == 0:
        return "…"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(content, depth - 1)}" for key, content in value.items())
    if isinstance(value, list):
        return ", ".join(_words(entry, depth - 1) for entry in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _number(value: object) -> float | None:
    """Return a number from 0 to 1e18, of which many can be added, or None. Text is accepted too, since YAML 1.1 reads
    1e-05 as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= _LARGEST else None
