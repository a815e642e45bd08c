"""Features on disk, for the runs to come: by everything that decides them, under a size cap.

A folder per kind of feature, named by a digest of its description; in it append-only shards that are written
beside their place and renamed, so that any number of processes may write and be killed. A shard is a header,
the keys, the features; its checksum is tested when it is opened, and one that fails is deleted. Shards are
mapped into memory, not read. Those used longest ago go first when the cap is passed.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import time
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER = struct.Struct("<8sIIII")
"""Magic word, rows, floats per row, bytes per key, checksum of all that follows."""
MAGIC = b"autofea1"
KEY_BYTES = 16
SUFFIX = ".features"
ABANDONED_S = 3600.0
"""Age after which a file that was never renamed is what a killed process left."""
FULL_SHARE = 0.9
"""Eviction goes on down to this share of the cap, so that it is not needed at every write."""

Features = NDArray[np.float32]


@dataclass(frozen=True)
class FeatureFiles:
    """A cache folder that never holds much more than `cap_bytes`."""

    root: Path
    cap_bytes: int = 4 * 2**30

    def kind(self, description: Mapping[str, Any]) -> FeatureKind:
        """The part of the cache for features with this description (JSON values)."""
        text = json.dumps(description, sort_keys=True)
        folder = self.root / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return FeatureKind(self, folder)

    def evict(self) -> None:
        """Delete the shards used longest ago until the cap holds, and what killed writers left."""
        shards = []
        for file in self.root.glob("*/*"):
            try:
                status = file.stat()
                if file.suffix == SUFFIX:
                    shards.append((status.st_mtime, status.st_size, file))
                elif time.time() - status.st_mtime > ABANDONED_S:
                    file.unlink()
            except FileNotFoundError:  # another process was faster
                continue
        total = sum(size for _, size, _ in shards)
        if total <= self.cap_bytes:
            return
        for _, size, file in sorted(shards):
            file.unlink(missing_ok=True)
            total -= size
            if total <= FULL_SHARE * self.cap_bytes:
                return


class FeatureKind:
    """Features of one description: rows by key (16 bytes each)."""

    def __init__(self, files: FeatureFiles, folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._seen: dict[str, Features] = {}
        self._place: dict[bytes, tuple[str, int]] = {}

    def find(self, keys: list[bytes]) -> dict[bytes, Features]:
        """Those of `keys` that are on disk, with their features float32 [d]; marks their shards as used."""
        self._look()
        found = {key: self._place[key] for key in keys if key in self._place}
        for name in {name for name, _ in found.values()}:
            try:
                os.utime(self._folder / name)
            except OSError:  # evicted meanwhile: the mapping is still good
                continue
        return {key: self._seen[name][row] for key, (name, row) in found.items()}

    def add(self, keys: list[bytes], features: Features) -> None:
        """Keep `features` float32 [n, d] of `keys` [n] in a new shard. A disk that is full, read-only or gone
        costs the cache, not the run: OSErrors end here."""
        body = b"".join(keys) + np.ascontiguousarray(features, dtype="<f4").tobytes()
        header = HEADER.pack(MAGIC, len(keys), features.shape[1], KEY_BYTES, zlib.crc32(body))
        name = uuid.uuid4().hex
        writing = self._folder / f"{name}.{os.getpid()}.writing"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            writing.write_bytes(header + body)
            writing.replace(self._folder / f"{name}{SUFFIX}")
            self._files.evict()
        except OSError:
            return

    def _look(self) -> None:
        """Open the shards that appeared since the last look."""
        try:
            names = sorted(e.name for e in os.scandir(self._folder) if e.name.endswith(SUFFIX))
        except OSError:
            return
        for name in names:
            if name in self._seen:
                continue
            opened = _open(self._folder / name)
            if opened is not None:
                keys, self._seen[name] = opened
                self._place.update({key: (name, row) for row, key in enumerate(keys)})


def _open(file: Path) -> tuple[list[bytes], Features] | None:
    """Keys and mapped features of a shard; None for a file that is gone or damaged, which is then deleted."""
    try:
        with file.open("rb") as stream:
            mapped = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: an empty file can not be mapped
        if isinstance(error, ValueError):
            file.unlink(missing_ok=True)
        return None
    content = _parse(mapped)
    if content is None:
        file.unlink(missing_ok=True)
    return content


def _parse(mapped: memoryview) -> tuple[list[bytes], Features] | None:
    if len(mapped) < HEADER.size:
        return None
    magic, rows, width, key_bytes, checksum = HEADER.unpack(mapped[: HEADER.size])
    body = mapped[HEADER.size :]
    split = rows * key_bytes
    whole = magic == MAGIC and key_bytes == KEY_BYTES and len(body) == split + rows * width * 4
    if not whole or zlib.crc32(body) != checksum:
        return None
    keys = [bytes(body[i : i + key_bytes]) for i in range(0, split, key_bytes)]
    return keys, np.frombuffer(body[split:], dtype="<f4").reshape(rows, width)
