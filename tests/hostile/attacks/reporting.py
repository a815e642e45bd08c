"""How an attack tells what it could do: a row of JSON, printed to the log of the submission."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

GIVEN: dict[str, Any] = json.loads((Path(__file__).parent / "given.json").read_text())
"""What the test tells: process ids, paths, ports. An attacker would have to find them out."""
Attack = Callable[[], object]


def attempt(attacks: Mapping[str, Attack], *, again: str = "") -> None:
    """Try one after another, in an empty folder. `again` tells a second round from the first."""
    os.chdir(tempfile.mkdtemp())
    for name, attack in attacks.items():
        try:
            got = attack()
        except (OSError, ValueError) as error:
            row = {"attack": name + again, "got": "", "why": f"{type(error).__name__}: {error}"}
        else:
            row = {"attack": name + again, "got": str(got or "")[:200]}
        print("ROW " + json.dumps(row), flush=True)
