"""Floats as Python has them."""

from __future__ import annotations

import torch


def pytest_runtest_setup() -> None:
    """Before each test of this folder. Older builds of PyTorch switch the smallest floats off when they load compiled
    code, whichever test asked for that; Hypothesis refuses to draw floats then."""
    torch.set_flush_denormal(False)
