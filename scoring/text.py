"""Helpers for text: natural order, safe display, numbers and durations for people."""

import re

KEY_CHARACTERS = 36
"""The longest key of a leaderboard column on Codabench."""

Natural = tuple[int | str, ...]


def natural_key(name: str) -> Natural:
    """Sort key under which "B2" comes before "B10"; upper case before lower case."""
    parts = re.split(r"(\d+)", name)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


def display(text: str, limit: int = 2000) -> str:
    """Make untrusted text printable: no control characters or lone surrogates, cut at `limit` characters."""
    shown = "".join(char if char.isprintable() or char == "\n" else " " for char in text).strip()
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def one_line(text: str, limit: int = 200) -> str:
    """Like `display`, on one line."""
    return display(" ".join(text.split()), limit)


def seconds_text(seconds: float | None) -> str:
    """Write a duration for people: "0.4 s", "12 s", "3 min 05 s", "2 h 07 min"."""
    if seconds is None:
        return "unknown"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def short_prefixes(prefixes: list[str], suffix: str, limit: int = KEY_CHARACTERS) -> list[str]:
    """Cut distinct prefixes so that no `prefix + suffix` is longer than `limit`; they stay distinct.

    A prefix that fits stays as it is. A cut one that is already used ends in the first free _2, _3, …
    """
    room = limit - len(suffix)
    taken = {prefix for prefix in prefixes if len(prefix) <= room}
    counts: dict[str, int] = {}  # where to look on: what was taken stays taken
    cut = []
    for prefix in prefixes:
        short, base = prefix[:room], prefix[:room]
        while len(prefix) > room and short in taken:
            counts[base] = count = counts.get(base, 1) + 1
            short = f"{prefix[: room - len(f'_{count}')]}_{count}"
        taken.add(short)
        cut.append(short)
    return cut


def safe_keys(names: list[str]) -> list[str]:
    """Turn names into distinct keys of ASCII letters, digits and underscores, one for each name.

    An empty key becomes "dataset"; a key that is already used gets the first free suffix _2, _3, …
    """
    keys: dict[str, None] = {}
    counts: dict[str, int] = {}  # where to look on: what was taken stays taken
    for name in names:
        base = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "dataset"
        key = base
        while key in keys:
            counts[base] = count = counts.get(base, 1) + 1
            key = f"{base}_{count}"
        keys[key] = None
    return list(keys)
