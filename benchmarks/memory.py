"""What takes memory: imports, each in a process of its own, and runs on the demo at several memory budgets.

    python benchmarks/memory.py [--quick] [--json FILE] [--caps 400MB,500MB] [--time-budget 120s] [--tasks N]

`memory/imports/LIBRARY`: bytes that count for a budget after `import LIBRARY` (anonymous pages, as ingestion counts
them; pages of shared libraries do not count), against those of PyTorch. `memory/demo/CAP`: the most that the
processes of a run held together, against the cap, with the score and the tasks that were not answered. `usual` is the
default budget. --quick: imports of PyTorch and of a submission, and one short run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ByteSize, TypeAdapter

LIBRARIES = (
    "numpy", "torch", "timm", "scipy.stats", "sklearn", "optuna", "openvino", "onnxruntime", "autometa.submission",
)  # fmt: skip
QUICK_LIBRARIES = ("torch", "autometa.submission")
CAPS = ("400MB", "450MB", "500MB", "600MB", "800MB", "1GB", "1500MB", "usual")
REFERENCE = "torch"
_CODE = """
import importlib, sys
importlib.import_module(sys.argv[1])
from pathlib import Path
lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
print(sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:")))
"""

Row = dict[str, Any]


def measure_import(library: str) -> int | None:
    """Bytes of a process that has imported a library; None where it cannot."""
    done = subprocess.run([sys.executable, "-c", _CODE, library], capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else None


def measure_imports(libraries: tuple[str, ...]) -> list[Row]:
    """A row for each library that is installed; prints them."""
    found = {library: measure_import(library) for library in libraries}
    reference, rows = found.get(REFERENCE), []
    for library, size in found.items():
        if size is None:
            print(f"  {library:<22} not installed")
            continue
        ratio = size / reference if reference else None
        rows.append(
            {
                "name": f"memory/imports/{library}",
                "value": size,
                "unit": "bytes",
                "reference": reference,
                "ratio": ratio,
            }
        )
        print(f"  {library:<22} {size / 1e6:6.0f} MB")
    return rows


def measure_run(cap: str, time_budget: str, tasks: int) -> Row:
    """One run on the demo within a memory budget; prints a line."""
    limit = None if cap == "usual" else int(TypeAdapter(ByteSize).validate_python(cap))
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        output = Path(folder) / "run"
        command = [sys.executable, "-m", "autometa", "run", "--time-budget", time_budget, "--json"]
        command += ["--tasks-per-dataset", str(tasks), "--output", str(output)]
        command += ["--memory-budget", cap] if limit else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        row: Row = {"name": f"memory/demo/{cap}", "value": None, "unit": "bytes", "reference": limit}
        if not done.stdout:
            print(f"  {cap:<8} refused: {done.stderr.strip().splitlines()[-1]}")
            return row | {"ratio": None, "score": None, "unanswered": None}
        peak = max(json.loads((output / "ingestion" / "memory.json").read_text()).values())
    scores = json.loads(done.stdout)
    score, unanswered = read_scores(scores)
    print(f"  {cap:<8} peak {peak / 1e6:5.0f} MB, score {score:.1f}, {unanswered} not answered")
    return row | {
        "value": peak,
        "ratio": peak / limit if limit else None,
        "score": score,
        "unanswered": unanswered,
    }


def read_scores(scores: dict[str, Any]) -> tuple[float, int]:
    """Overall normalised accuracy in percent and the number of tasks without an answer, of `autometa run --json`."""
    overall = scores["overall"]
    return 100 * float(overall["normalised_accuracy"]), int(overall["missing"])


def main() -> None:
    """Measure, print, and write what `--json` asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two imports and one short run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--caps", default=",".join(CAPS), metavar="SIZE,...", help="memory budgets of runs")
    parser.add_argument("--time-budget", default="120s", metavar="TIME", help="of each run")
    parser.add_argument("--tasks", type=int, default=30, metavar="N", help="of each dataset")
    given = parser.parse_args()
    caps, time_budget, tasks = given.caps.split(","), given.time_budget, given.tasks
    if given.quick:
        caps, time_budget, tasks = ["500MB"], "40s", 1
    print("imports")
    rows = measure_imports(QUICK_LIBRARIES if given.quick else LIBRARIES)
    print(f"runs on the demo, {time_budget}, {tasks} tasks a dataset")
    rows += [measure_run(cap, time_budget, tasks) for cap in caps]
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
