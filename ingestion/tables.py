"""Tables and JSON as people write them: other separators, spaces, a comma too many. Each liberty taken is a line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingestion.errors import InputError
from ingestion.folders import printable, shortlist, suffix_of
from ingestion.formats import image_suffixes

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
FILE_COLUMNS = frozenset(
    {"filename", "file", "image", "imagename", "path", "imagepath", "filepath", "imagefile", "id", "imageid"}
)
CLASS_COLUMNS = frozenset(
    {"category", "label", "class", "classname", "labelname", "target", "species", "kind"}
)
_STRING_OR_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')


@dataclass(frozen=True)
class Table:
    """`rows`: number of the line, and the file name and class on it."""

    rows: tuple[tuple[int, str, str], ...]
    notes: tuple[str, ...]


def read_json(file: Path) -> object:
    """The parsed JSON file; InputError names the file and the place where it is not JSON, or a key that one object
    has twice."""
    content, _, doubles = _parse(file)
    if doubles:
        raise InputError(
            f"{file}: the key `{printable(doubles[0])}` comes twice in one object; delete one of them"
        )
    return content


def read_json_tolerantly(file: Path) -> tuple[object, tuple[str, ...]]:
    """The parsed JSON file, also with commas behind a last item, or a key that one object has twice; a line tells
    of either. InputError names the file and the place where it is not JSON."""
    content, notes, doubles = _parse(file)
    if doubles:
        named = shortlist(f"`{key}`" for key in doubles)
        notes = (*notes, f"{file.name}: {named}: comes twice in one object; the last one counts")
    return content, notes


def _parse(file: Path) -> tuple[object, tuple[str, ...], list[str]]:
    """What is in a JSON file, the liberty taken with its commas, and keys that one object has twice."""
    doubles: list[str] = []

    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        doubles.extend(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return dict(pairs)

    try:
        text = file.read_text(encoding="utf-8-sig")
        try:
            return json.loads(text, object_pairs_hook=collect), (), doubles
        except json.JSONDecodeError:
            mended = _STRING_OR_TRAILING_COMMA.sub(lambda found: found[1] or "", text)
            if mended == text:
                raise
            doubles.clear()
            note = f"{file.name}: a comma behind the last item is passed over"
            return json.loads(mended, object_pairs_hook=collect), (note,), doubles
    except (OSError, ValueError, RecursionError) as error:  # ValueError: of numbers with too many digits, too
        raise InputError(f"{file}: cannot be read as JSON ({error}); correct it") from error


def read_table(file: Path, columns: tuple[str, str] | None) -> Table:
    """The rows of a table of file names and classes. `columns`: their names, None: to be found out.

    InputError names the file, the line and what to change.
    """
    text, notes = _text_of(file)
    separator = _separator(text)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        lines = [
            (reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise InputError(f"{file}: not a table of comma-separated values ({error})") from error
    if not lines:
        raise InputError(f"{file}: lists no image; give a line with a file name and a class for each")
    if separator != ",":
        notes.append(f"{file.name}: read with {SEPARATORS[separator]} between its columns")
    if any(cell != cell.strip() for line in text.splitlines()[:2] for cell in line.split(separator)):
        notes.append(f"{file.name}: spaces around its cells are passed over")
    header, body = lines[0][1], lines[1:]
    if columns is None:
        columns, header, body = _find_columns(file, lines)
        notes.append(
            f"{file.name}: files are taken from column `{columns[0]}`, classes from `{columns[1]}`, since info.json "
            "does not name them"
        )
    places = _places(file, header, columns)
    rows = []
    for number, cells in body:
        picked = [cells[place] if place < len(cells) else "" for place in places]
        if not all(picked):
            raise InputError(
                f"{file}, line {number}: a file name or class is empty; complete it or delete the line"
            )
        rows.append((number, picked[0], picked[1]))
    if not rows:
        raise InputError(f"{file}: lists no image; give a line with a file name and a class for each")
    return Table(tuple(rows), tuple(notes))


def _text_of(file: Path) -> tuple[str, list[str]]:
    try:
        data = file.read_bytes()
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return data.decode("utf-16"), [f"{file.name}: read as UTF-16"]
        return data.decode("utf-8-sig"), []
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{file}, line {line}: not a comma-separated UTF-8 table; save it as UTF-8"
        ) from error


def _separator(text: str) -> str:
    """The comma, unless the header has none but another separator."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(SEPARATORS, key=header.count) if "," not in header else ","


def _places(file: Path, header: Sequence[str], columns: tuple[str, str]) -> tuple[int, int]:
    """Where these columns are; in any case, where the names differ in nothing else."""
    folded = [name.casefold() for name in header]
    places = []
    for column in columns:
        if column in header:
            places.append(header.index(column))
        elif folded.count(column.strip().casefold()) == 1:
            places.append(folded.index(column.strip().casefold()))
        else:
            raise InputError(
                f"{file}: no column {column} (named in info.json); it has {', '.join(header)}; correct "
                "`image_column_name` and `category_column_name` there"
            )
    return places[0], places[1]


def _find_columns(
    file: Path, lines: list[tuple[int, list[str]]]
) -> tuple[tuple[str, str], list[str], list[tuple[int, list[str]]]]:
    """Names of the two columns, the header and the lines below it; without a header, columns are numbered."""
    header, body = lines[0][1], lines[1:]
    if any(_names_image(cell) for cell in header):
        header, body = [str(number) for number, _ in enumerate(header, start=1)], lines
    of_files = [
        n
        for place, n in enumerate(header)
        if body and all(_names_image(_cell(row, place)) for _, row in body)
    ]
    of_files = of_files or [name for name in header if _plain(name) in FILE_COLUMNS]
    others = [name for name in header if name not in of_files]
    of_classes = [name for name in others if _plain(name) in CLASS_COLUMNS] or others
    if len(of_files) == len(of_classes) == 1:
        return (of_files[0], of_classes[0]), header, body
    raise InputError(
        f"{file}: which of its columns ({', '.join(header)}) are file name and class is not clear; write info.json "
        'beside it: {"image_column_name": "...", "category_column_name": "..."}'
    )


def _cell(row: Sequence[str], place: int) -> str:
    return row[place] if place < len(row) else ""


def _names_image(cell: str) -> bool:
    return suffix_of(cell) in image_suffixes()


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()
