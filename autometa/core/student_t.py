"""The width of 95 % intervals."""

from __future__ import annotations

CONFIDENCE = 0.95


def quantile95(n: int) -> float:
    """How many standard errors a 95 % Student-t interval of the mean of `n` values, two or more, reaches to each
    side."""
    from scipy.special import stdtrit  # noqa: PLC0415 - takes 11 MB, and nothing in meta-test needs it

    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
