"""Real runs of small bundles that fail in the ways of the stand-ins, judged by `autometa judge`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from _organiser_plan import tells
from _toy_bundle import write_bundle

from autometa.judging.folder import ledger_of
from run_local import DEMO, ROOT

SEED, TASKS = 93, 10
FAULTS: Mapping[str, Mapping[str, str]] = {
    "crash in meta_fit": {"meta_fit": "raise ValueError('on purpose')"},
    "crash in predict": {"predict": "assert MyLearner.fitted % 4, 'on purpose'"},
    "hang": {"meta_fit": "time.sleep(3600)"},
    "memory": {"meta_fit": "kept = [np.ones(10**7) for _ in range(200)]"},
    "bad predictions": {"predict": "scores[:] = np.nan"},
    "killed run": {"meta_fit": "os.kill(os.getpid(), 9)"},
    "full disk": {"save": "print('x' * 10**6, file=open('/dev/full', 'w'))"},
}
"""What bundles do in addition, by the way in which they fail. Where a sandbox has no /dev/full, opening it fails."""


def judge_real(folder: Path, failing: int) -> tuple[int, int, float]:
    """Judge a good bundle and the first `failing` bad ones; how many runs there were, how many are lost, and the mean
    seconds of a run. SystemExit where the judge itself fails."""
    kinds = {"good": "", **{kind.replace(" ", "-"): kind for kind in list(FAULTS)[:failing]}}
    bundles = [
        str(write_bundle(folder / "bundles" / name, **FAULTS.get(kind, {}))) for name, kind in kinds.items()
    ]
    asked = {
        "dataset": DEMO / "LETTERS", "output": folder / "real", "seeds": 1, "time-budget": "90s",
        "memory-budget": "1200MB", "image-size": 32, "tasks-per-dataset": TASKS, "ways": "2-5", "shots": "1-2",
        "query-per-class": 2,
    }  # fmt: skip
    options = [str(part) for name, value in asked.items() for part in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, "-m", "autometa", "judge", *bundles, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )
    if done.returncode not in (0, 1):  # 1: none was scored, as the rows tell
        raise SystemExit(f"organiser: real runs: status {done.returncode}: {done.stderr.strip()[-300:]}")
    rows = ledger_of(folder / "real").rows()
    for row in rows.values():
        print(
            f"real, {row.submission}: {row.status}, {row.unanswered} not answered, {row.wall_s:.1f} s; {row.reason}"
        )
    lost = sum(not tells(rows.get((name, SEED)), kind) for name, kind in kinds.items())
    return len(kinds), lost, float(np.mean([row.wall_s for row in rows.values()]))
