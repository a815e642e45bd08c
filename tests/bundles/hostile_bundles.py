"""Bundles that are broken or meant to do harm: how each is made, and what it is told."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SOUND = """\
from api import Learner, MetaLearner, Predictor

class MyMetaLearner(MetaLearner):
    def meta_fit(self, train, valid):
        return MyLearner()

class MyLearner(Learner):
    def fit(self, support_set):
        return MyPredictor()
    def save(self, path):
        pass
    def load(self, path):
        pass

class MyPredictor(Predictor):
    def predict(self, query_set):
        return None
"""
CENTRAL = b"PK\x01\x02"
"""Begins the row of a file in the table at the end of a zip file."""
FLAGS, METHOD, PACKED, SIZE, NAME, EXTRA, ATTRIBUTES, OFFSET = 8, 10, 20, 24, 28, 30, 38, 42
"""Where fields of such a row are."""


@dataclass(frozen=True)
class Hostile:
    """`make` writes the bundle into an empty folder; `told` must be in the one line that refuses it."""

    name: str
    make: Callable[[Path], Path]
    told: str


def packed(*files: tuple[str, str | bytes], change: Callable[[bytearray], object] | None = None) -> bytes:
    """A zip file with these files; `change` is applied to its bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    data = bytearray(stream.getvalue())
    if change is not None:
        change(data)
    return bytes(data)


def patch(field: int, form: str, value: int, row: int = -1) -> Callable[[bytearray], object]:
    """Changes a field of a row, by default of the last one, in the table of a zip file."""

    def change(data: bytearray) -> None:
        starts = [place for place in range(len(data) - 3) if data[place : place + 4] == CENTRAL]
        struct.pack_into(form, data, starts[row] + field, value)

    return change


def _zip(name: str, told: str, data: Callable[[], bytes]) -> Hostile:
    def make(folder: Path) -> Path:
        (folder / "bundle.zip").write_bytes(data())
        return folder / "bundle.zip"

    return Hostile(name, make, told)


def _with(name: str, told: str, *names: str) -> Hostile:
    """A zip file with such names beside a sound `model.py`."""
    return _zip(name, told, lambda: packed(("model.py", SOUND), *((each, "x") for each in names)))


def _patched(name: str, told: str, change: Callable[[bytearray], object]) -> Hostile:
    """A zip file with a sound `model.py` and `data.txt`, of which bytes are changed."""
    return _zip(name, told, lambda: packed(("model.py", SOUND), ("data.txt", "x" * 50), change=change))


def _files(name: str, told: str, **files: str | bytes) -> list[Hostile]:
    """A folder with these files beside a sound `model.py`, or in its place, and the same as a zip file."""
    contents: dict[str, str | bytes] = {"model.py": SOUND}
    contents |= {file.replace("_", "."): content for file, content in files.items()}

    def make(folder: Path) -> Path:
        for file, content in contents.items():
            (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return [
        Hostile(f"{name}, a folder", make, told),
        _zip(f"{name}, a zip", told, lambda: packed(*contents.items())),
    ]


def _null_in_name(data: bytearray) -> None:
    data[:] = data.replace(b"data.txt", b"data\0txt")


def _no_name(data: bytearray) -> None:
    """Where the name was, there is a field of extra data."""
    data[:] = data.replace(b"data.txt", b"\x01\x02\x04\x00data")
    patch(NAME, "<H", 0)(data)
    patch(EXTRA, "<H", len("data.txt"))(data)


def _huge() -> bytes:
    """Declares three files of nearly 4 GiB each."""
    files = [(name, "x" * 50) for name in ("a", "b", "c")]
    data = bytearray(packed(("model.py", SOUND), *files))
    for row in (-1, -2, -3):
        patch(SIZE, "<I", 2**32 - 2, row)(data)
    return bytes(data)


def _twice() -> bytes:
    """Two files of one name, of which `zipfile` warns when it writes them."""
    return packed(
        ("model.py", SOUND), ("a.txt", "1"), ("b.txt", "2"),
        change=lambda data: data.__setitem__(slice(None), data.replace(b"b.txt", b"a.txt")),
    )  # fmt: skip


NAMES = [
    _with("no file", "`.` is no name of a file; leave it out", "."),
    _with("absolute path", "`/etc/cron.d/x` leaves the bundle's folder", "/etc/cron.d/x"),
    _with("parent path", "`a/../../x` leaves the bundle's folder", "a/../../x"),
    _with("drive of Windows", "`C:x.py` leaves the bundle's folder", "C:x.py"),
    _with("backslash", "leaves the bundle's folder", "..\\x.py"),
    _with("case clash", "`model.py` and `MODEL.py` differ only in case; rename one", "MODEL.py"),
    _with("two encodings of a letter", "in two encodings of its letters", "caf\u00e9.txt", "cafe\u0301.txt"),
    _with("a file that is a folder", "`a` is a file, but `a/b` lies in it", "a", "a/b"),
    _with("direction override", r"`x\u202eyp.txt` has characters that are not seen", "x\u202eyp.txt"),
    _with("line break", r"`a\nb` has characters that are not seen", "a\nb"),
    _with("device of Windows", "the name of a device on Windows (`aux.py`); rename it", "lib/aux.py"),
    _with("dot at the end", "ends in a dot or a space", "data."),
    _with("deep folders", "lies 71 folders deep, at most 64; move it up", "a/" * 70 + "x"),
    _with("long name", "has a name of 300 bytes, at most 255", "x" * 300),
    _patched("no name", "`` is no name of a file; leave it out", _no_name),
    _patched("null in a name", r"`data\x00txt` has characters that are not seen", _null_in_name),
]
ARCHIVES = [
    _patched("link", "`data.txt` is a link; put the file in", patch(ATTRIBUTES, "<I", 0o120777 << 16)),
    _patched("pipe", "neither a file nor a folder", patch(ATTRIBUTES, "<I", 0o010644 << 16)),
    _patched("device", "neither a file nor a folder", patch(ATTRIBUTES, "<I", 0o060644 << 16)),
    _patched("encrypted", "`data.txt` is encrypted; pack it without a password", patch(FLAGS, "<H", 1)),
    _patched("other compression", "compressed by method 14; pack it with the usual one", patch(METHOD, "<H", 14)),
    _patched("bomb", "from 6, as a zip bomb does; leave it out", patch(SIZE, "<I", 3 * 10**8)),
    _patched("shared data", "and of what follows overlap; pack it again", patch(OFFSET, "<I", 0)),
    _patched("wrong sum", "not a readable zip file (Bad CRC-32 for file 'data.txt'", patch(16, "<I", 5)),
    _patched("wrong size", "not a readable zip file", patch(SIZE, "<I", 20)),
    _patched("trailing garbage", "8 bytes lie behind its end; pack it again", lambda data: data.extend(b"12345678")),
    _zip("leading garbage", "other data lie before its first file", lambda: b"#!" + packed(("model.py", SOUND))),
    _zip("too large", "to more than 8589934592 bytes", _huge),
    _zip("truncated", "it is cut off or damaged: pack it again", lambda: packed(("model.py", SOUND))[:-30]),
    _zip("empty file", "give a folder, or pack its files as zip", lambda: b""),
    _zip("empty archive", "no model.py at its root; put the file with the classes", packed),
    _zip("other archive", "it is a gzip archive; pack the files as zip", lambda: b"\x1f\x8b" + b"0" * 99),
    _zip("a Python file", "give a folder, or pack its files as zip", SOUND.encode),
    _zip("one folder", "it lies in `mine/`: zip the files", lambda: packed(("mine/model.py", SOUND))),
    _zip("archive within", "archive `in.zip` in it", lambda: packed(("in.zip", packed(("model.py", SOUND))))),
    _zip("twice", "`a.txt` is in it twice; leave one out", _twice),
]  # fmt: skip
CONTENTS = [
    *_files("not UTF-8", "utf-8", model_py=b"name = '\xff\xfe'\n" + SOUND.encode()),
    *_files("syntax", "is no Python: invalid syntax", model_py=f"x = = 1\n{SOUND}"),
    *_files("binary", "is no Python: source code", model_py=b"\0\0" + SOUND.encode()),
    *_files("deep nesting", "is no Python", model_py="x = " + "-" * 50_000 + "1\n"),
    *_files("no learner", "defines no class MyLearner", model_py=SOUND.replace("MyLearner", "Mine")),
    *_files("no classes", "defines no class MyMetaLearner", model_py=""),
    *_files("one argument", "meta_fit is called with 2 arguments", model_py=SOUND.replace("train, valid", "train")),
    *_files("no self", "MyLearner.fit is called with 1", model_py=SOUND.replace("self, support_set", "*, a")),
    *_files("text for a number", "batch_size = 'many'", config_json='{"batch_size": "many"}'),
    *_files("a list", "config.json: the file = [1]", config_json="[1]"),
    *_files("no JSON", "cannot be read as JSON", config_json="{batch_size: 3}"),
    *_files("not a number", "batch_size = nan", config_json='{"batch_size": NaN}'),
    *_files("key twice", "comes twice in one object", config_json='{"batch_size": 3, "batch_size": 4}'),
    *_files("many digits", "cannot be read as JSON", config_json=f'{{"batch_size": {"9" * 5000}}}'),
    *_files("deep brackets", "cannot be read as JSON", config_json="[" * 100_000),
    *_files("long text", "train_config = 'xxx", config_json=json.dumps({"train_config": "x" * 10_000})),
]  # fmt: skip


HOSTILE = [*NAMES, *ARCHIVES, *CONTENTS]
