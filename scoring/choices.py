"""What a submission says it has chosen and why: `choices.json`, which is not trusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.files import read_optional

if TYPE_CHECKING:
    from scoring.choices_file import Choices

CHOICES_FILE = "choices.json"
_MAX_BYTES = 256 * 2**10


def read_choices(results_dir: Path, hide: Callable[[str], str] | None) -> tuple[Choices | None, list[str]]:
    """Return the choices, None if the file is missing or unusable, and notes that say what was ignored.

    `hide` changes all texts, since they may name what is private.
    """

    def parse(data: bytes) -> Choices:
        from scoring.choices_file import change_texts, parse_choices  # noqa: PLC0415  (pydantic is slow to import)

        return change_texts(parse_choices(data), hide) if hide else parse_choices(data)

    return read_optional(results_dir / CHOICES_FILE, _MAX_BYTES, parse)
