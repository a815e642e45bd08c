"""A real import of a bundle, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from autometa.bundles.findings import Finding, error
from autometa.bundles.shipped import ROOT

LIMIT_S = 180.0
SCRIPT = Path(__file__).with_name("probe_child.py")


def probe(bundle: Path, limit_s: float = LIMIT_S) -> list[Finding]:
    """What importing `model.py` and looking at its classes finds. Nothing of the bundle runs in this process."""
    with tempfile.TemporaryDirectory(prefix="autometa-bundle-") as scratch:
        output = Path(scratch) / "findings.json"
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {
            "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"
        }  # fmt: skip
        command = [sys.executable, str(SCRIPT), str(bundle.resolve()), str(output)]
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd=scratch,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [error("model.py", f"its import took over {limit_s:.0f} s")]
        if not output.is_file():
            last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            return [
                error(
                    "model.py", f"its import ended the process with status {done.returncode} ({last[:200]})"
                )
            ]
        return [error(each["where"], each["text"]) for each in json.loads(output.read_text(encoding="utf-8"))]
