"""Imported before the others: garbage is not looked for while modules are imported and tests are collected.

That took a good part of the time until the first test. `conftest.py` switches it on again, without all that is
there by then, which lives as long as the process. Threads of PyTorch, which is imported later, wait without using a
core: beside other programs that saves most of the time.
"""

from __future__ import annotations

import gc
import os

gc.disable()
os.environ.setdefault("GOMP_SPINCOUNT", "0")


def look_for_it_from_here_on() -> None:
    """What there is by now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.enable()
