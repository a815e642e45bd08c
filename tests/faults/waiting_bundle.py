"""The body of a `meta_fit` that lasts as long as a test wants."""

from __future__ import annotations

from pathlib import Path


def wait_between(started: Path, ended: Path) -> str:
    """It makes the first file, and goes on when the second one is there."""
    return f"""
        Path({str(started)!r}).touch()
        while not Path({str(ended)!r}).exists(): time.sleep(0.02)
        return MyLearner()
    """
