"""What property tests draw from, and what an error has to look like."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

MOST_CHARACTERS = 2000
MANY_DIGITS = "MANY_DIGITS"
"""Stands for a number with more digits than Python reads."""

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([MANY_DIGITS, -1, 0, 2**63, "task", "2-20", "auto", "nan", "1e999", "\ud800", "a\nb"])
)
JSON_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
"""Any value, also those that JSON holds only in Python's dialect."""


def as_json(value: Any) -> bytes:
    """The value as JSON text."""
    return json.dumps(value).replace(f'"{MANY_DIGITS}"', "9" * 5000).encode()


def objects(*keys: str, more: st.SearchStrategy[Any] = JSON_VALUES) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any values under some of these keys."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(keys, more))


def assert_one_line(error: BaseException | str) -> None:
    """That an error has one line, which can be shown on any terminal and does not fill it."""
    text = str(error)
    assert text.strip() and "\n" not in text and "\r" not in text, repr(text)
    assert len(text) < MOST_CHARACTERS, f"{len(text)} characters"
    text.encode()
