"""Texts of others, made safe to show: names and values from files that may hold anything, words of submissions."""

from __future__ import annotations

import unicodedata
from collections.abc import Container

UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of what ends a line, steers a terminal, or cannot be encoded."""
TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction of text. Other letters that are not seen belong to words and emoji."""
MOST_SHOWN = 1500


def show(text: str, most: int = MOST_SHOWN, *, unseen: Container[str] = UNSEEN) -> str:
    """The text as one line that any terminal can show: what is not seen is written as an escape, and of a long text,
    the middle is left out. The same text, where nothing is wrong with it."""
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-(most // 2) :]}"
    if text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode()
        if letter in TURNING or unicodedata.category(letter) in unseen
        else letter
        for letter in text
    )


def plain(text: str) -> str:
    """Text of a submission without control characters and lone surrogates, which a terminal or a file may not
    accept."""
    if text.isprintable() and text.isascii():
        return text
    printable = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
    return printable.encode("utf-8", "replace").decode("utf-8")


def one_line(text: str) -> str:
    """`text` without line ends, with which a submission could forge what ingestion says."""
    return " ".join(plain(text).split())
