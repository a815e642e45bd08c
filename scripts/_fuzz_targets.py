"""What `scripts/fuzz.py` feeds with bytes: readers of what others write.

A target returns where the bytes are read, or refused by an error that the reader is documented to raise, in one line.
Anything else that it raises is a finding. Seeds are small and made here.
"""

from __future__ import annotations

import io
import json
import socket
import struct
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ingestion.archives import unpack
from ingestion.channel import Channel
from ingestion.errors import InputError, SubmissionError
from ingestion.formats import UNUSABLE
from ingestion.model_file import check_model
from ingestion.pixels import decode_image
from ingestion.sources import read_source
from ingestion.tables import read_table
from scoring.predictions import read_prediction
from scoring.run_info import read_run_info

PX = 8
QUERIES, WAYS = 3, 4
MOST_BYTES = 4096
"""Of an input: all readers have what can go wrong in it within that, and a socket holds it."""


@dataclass(frozen=True)
class Target:
    """`check` gets bytes and a folder of its own, which it may leave anything in; `seeds` to start from."""

    check: Callable[[bytes, Path], None]
    seeds: tuple[bytes, ...]


def run_target(target: Target, data: bytes) -> None:
    """Check one input in an empty folder."""
    with tempfile.TemporaryDirectory(prefix="autometa-fuzz-") as folder:
        target.check(data[:MOST_BYTES], Path(folder))


def _refused(error: Exception) -> None:
    """That what was refused is told in one line."""
    text = str(error)
    assert text.strip() and len(text.splitlines()) == 1 and len(text) < 3000, repr(text)
    text.encode()


def _predictions(data: bytes, folder: Path) -> None:
    file = folder / "task_1.predict"
    file.write_bytes(data)
    found = read_prediction(file, QUERIES, WAYS)
    assert (found.labels is None) == (found.status != "ok")
    if found.labels is not None:
        assert found.labels.shape == (QUERIES,) and 0 <= found.labels.min() <= found.labels.max() < WAYS


def _table(data: bytes, folder: Path) -> None:
    file = folder / "labels.csv"
    file.write_bytes(data)
    for columns in (None, ("FILE_NAME", "CATEGORY")):
        try:
            table = read_table(file, columns)
        except InputError as error:
            _refused(error)
        else:
            assert table.rows and all(name and label for _, name, label in table.rows)


def _dataset(folder: Path) -> None:
    (folder / "SET").mkdir()
    (folder / "SET" / "labels.csv").write_bytes(b"FILE_NAME,CATEGORY\na.png,x\nb.png,y\n")
    (folder / "SET" / "info.json").write_bytes(
        b'{"image_column_name": "FILE_NAME", "category_column_name": "CATEGORY"}'
    )


def _splits(data: bytes, folder: Path) -> None:
    _dataset(folder)
    (folder / "info").mkdir()
    (folder / "info" / "meta_splits.txt").write_bytes(data)
    try:
        assert read_source(folder).is_metadl_root
    except InputError as error:
        _refused(error)


def _frames(data: bytes, _: Path) -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(theirs.detach(), max_head_bytes=MOST_BYTES)
    try:
        ours.sendall(data)
        ours.close()
        while True:
            message = channel.receive()
            assert message.array is None or message.array.dtype.kind in "iufb"
    except EOFError:
        pass
    except SubmissionError as error:
        _refused(error)
    finally:
        channel.close()


def _image(data: bytes, _: Path) -> None:
    try:
        pixels = decode_image(data, PX)
    except UNUSABLE:
        return
    assert pixels.shape == (3, PX, PX) and pixels.dtype == np.uint8


def _archive(data: bytes, folder: Path) -> None:
    (folder / "bundle.zip").write_bytes(data)
    inside = folder / "in" / "side"
    try:
        unpack(folder / "bundle.zip", inside)
    except InputError as error:
        _refused(error)
    written = {path.relative_to(folder).parts[0] for path in folder.rglob("*")}
    assert written <= {"bundle.zip", "in"}, "a file left the folder"
    assert set((folder / "in").glob("*")) <= {inside}, "a file left the folder"


def _model(data: bytes, folder: Path) -> None:
    (folder / "model.py").write_bytes(data)
    try:
        check_model(folder)
    except InputError as error:
        _refused(error)


def _record(data: bytes, folder: Path) -> None:
    for name in ("metadata_ingestion", "ingestion.json", "memory.json", "stages.json"):
        (folder / name).write_bytes(data)
    read_run_info(folder)


def _pictures() -> tuple[bytes, ...]:
    pixels = np.arange(PX * PX * 3, dtype=np.uint8).reshape(PX, PX, 3)
    made = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        made.append(stream.getvalue())
    return tuple(made)


def _zips() -> tuple[bytes, ...]:
    made = []
    for names in (("model.py",), ("model.py", "lib/net.py"), ("../x",)):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, "x = 1\n" * 5)
        made.append(stream.getvalue())
    return tuple(made)


def _framed(head: object, payload: bytes = b"") -> bytes:
    raw = json.dumps(head).encode() + b"\n" + payload
    return struct.pack("!Q", len(raw)) + raw


MODEL = b"class MyMetaLearner:\n    def meta_fit(self, a, b): pass\nclass MyLearner:\n    def fit(self, a): pass\n"
TARGETS = {
    "predictions": Target(_predictions, (b"0.1 0.2 0.3 0.4\n" * 3, b"1\n0\n3\n", b"nan nan nan nan\n" * 3)),
    "table": Target(_table, (b"FILE_NAME,CATEGORY\na.png,x\n", b"a.png;x\n", b'"a",b\t"c\n', b"\xff\xfea\0")),
    "splits": Target(_splits, (b'{"meta-train": ["SET"], "meta-test": ["SET"]}', b'{"meta-train": [],}')),
    "frames": Target(_frames, (
        _framed({"kind": "ready", "fields": {}}),
        _framed({"kind": "p", "fields": {"a": 1}, "dtype": "<f4", "shape": [1, 2]}, b"\0" * 8),
    )),
    "image": Target(_image, _pictures()),
    "archive": Target(_archive, _zips()),
    "model": Target(_model, (MODEL, b"from x import *\n", b"# coding: latin-1\nx = '\xe9'\n")),
    "record": Target(_record, (
        b"Total execution time: 1.5\n", b'{"failures": {"1": "x"}, "stages": [{"name": "a", "seconds": 1}]}',
    )),
}  # fmt: skip
