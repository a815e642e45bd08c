"""What a submission says it has chosen and why: `choices.json`, which is not trusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.errors import UnreadableFileError
from scoring.files import read_bytes
from scoring.text import one_line

if TYPE_CHECKING:
    from scoring.choices_file import Choices

CHOICES_FILE = "choices.json"
_MAX_BYTES = 256 * 2**10


def read_choices(results_dir: Path, hide: Callable[[str], str] | None) -> tuple[Choices | None, list[str]]:
    """Return the choices, None if the file is missing or unusable, and notes that say what was ignored.

    `hide` changes all texts, since they may name what is private.
    """
    path = results_dir / CHOICES_FILE
    try:
        data = read_bytes(path, _MAX_BYTES)
    except FileNotFoundError:
        return None, []
    except UnreadableFileError as error:
        return None, [f"{path.name} {error}: ignored"]
    from scoring.choices_file import change_texts, parse_choices  # noqa: PLC0415  (pydantic is slow to import)

    try:
        choices = parse_choices(data)
    except ValueError as error:
        return None, [f"{path.name} is malformed: ignored ({one_line(str(error))})"]
    return (change_texts(choices, hide) if hide else choices), []
