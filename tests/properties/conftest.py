"""Floats as Python has them."""

from __future__ import annotations

import torch

torch.set_flush_denormal(
    False
)  # older builds of PyTorch switch it on, and Hypothesis refuses to draw floats then
