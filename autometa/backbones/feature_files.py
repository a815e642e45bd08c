"""A cache of features on disk for later runs, with a maximum size.

Each kind of feature has a folder, named by a digest of everything that determines the features. A folder holds
shards, which are never changed: a shard is written under another name and renamed, so that any number of processes
can write and can be killed. A shard has a header, the keys and the features. Its checksum is tested when it is
opened; a damaged shard is deleted, and its features are computed again. Shards are mapped into memory, not read.
When the cache is full, the least recently used shards are deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import struct
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autometa.core.errors import ArtifactError

HEADER = struct.Struct("<8sIIII")
"""Magic word, rows, floats per row, bytes per key, checksum of everything after the header."""
MAGIC = b"autofea1"
KIND = MAGIC[:-1]
"""Of the magic word, what all versions have in common."""
KEY_BYTES = 16
SUFFIX, HALF_SUFFIX = ".features", ".writing"
"""Of a shard, and of one that is being written."""
FOLDER = "[0-9a-f]" * 32
"""Names of the folders of kinds. Whatever else lies there, as in a home that is named as the cache, is not ours."""
MOST_MAPPED = 64
"""Shards of a kind that stay mapped: each takes a descriptor. Others are opened whenever they are needed."""
ABANDONED_S = 3600.0
"""A file that was not renamed within this time was left by a killed process."""
FULL_SHARE = 0.9
"""Eviction deletes shards until this share of the maximum is used, so that not every write evicts."""

Features = NDArray[np.float32]


@dataclass(frozen=True)
class FeatureFiles:
    """A cache folder of about `cap_bytes` at most. `report` gets a line where it is damaged or cannot be written."""

    root: Path
    cap_bytes: int = 4 * 2**30
    report: Callable[[str], None] = lambda _: None

    def kind(self, description: Mapping[str, Any]) -> FeatureKind:
        """The part of the cache for features with this description, whose values must be JSON values."""
        text = json.dumps(description, sort_keys=True)
        folder = self.root / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return FeatureKind(self, folder)

    def evict(self) -> None:
        """If the cache is too large, delete the least recently used shards; delete what killed processes left."""
        shards = []
        for file in self.root.glob(f"{FOLDER}/*"):
            try:
                status = file.stat()
                if file.suffix == SUFFIX:
                    shards.append((status.st_mtime, status.st_size, file))
                elif file.suffix == HALF_SUFFIX and time.time() - status.st_mtime > ABANDONED_S:
                    file.unlink()
            except FileNotFoundError:  # another process deleted it
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
    """Features with one description: float32 [d] by key of 16 bytes."""

    def __init__(self, files: FeatureFiles, folder: Path) -> None:
        self._files = files
        self._folder = folder
        self._mapped: dict[str, Features] = {}
        self._seen: set[str] = set()
        self._told = False
        self._places: dict[bytes, tuple[str, int]] = {}

    def find(self, keys: list[bytes]) -> dict[bytes, Features]:
        """The features float32 [d] of those `keys` that are on disk; marks their shards as used."""
        self._open_new_shards()
        keys_of: dict[str, list[bytes]] = defaultdict(list)
        for key in keys:
            if key in self._places:
                keys_of[self._places[key][0]].append(key)
        found: dict[bytes, Features] = {}
        for name, own in keys_of.items():
            with contextlib.suppress(OSError):  # evicted in the meantime: a mapping is still valid
                os.utime(self._folder / name)
            rows = [self._places[key][1] for key in own]
            mapped = self._mapped.get(name)
            values = self._read(name, rows) if mapped is None else [mapped[row] for row in rows]
            found |= zip(own, values, strict=False)  # no value of a shard that is gone
        return {key: found[key] for key in keys if key in found}

    def _read(self, name: str, rows: list[int]) -> list[Features]:
        """Copies of rows of a shard that is not mapped; none where it is gone."""
        try:
            opened = _open_shard(self._folder / name)
        except ArtifactError as error:
            self._files.report(f"{error}; what it held is computed again")
            return []
        return [] if opened is None else list(opened[1][rows])

    def add(self, keys: list[bytes], features: Features) -> None:
        """Write `features` float32 [n, d] of `keys` [n] to a new shard. If the disk is full or read-only, the run
        goes on without the cache, after one line of report."""
        name = uuid.uuid4().hex
        partial = self._folder / f"{name}.{os.getpid()}{HALF_SUFFIX}"
        try:
            body = b"".join(keys) + np.ascontiguousarray(features, dtype="<f4").tobytes()
            header = HEADER.pack(MAGIC, len(keys), features.shape[1], KEY_BYTES, zlib.crc32(body))
            self._folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                stream.write(header)
                stream.write(body)
            partial.replace(self._folder / f"{name}{SUFFIX}")
            self._files.evict()
        except (OSError, MemoryError) as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)  # a half file would keep space that is short
            reason = getattr(error, "strerror", None) or "not enough memory"
            self.tell_lost(reason, "free space there, or name another folder")

    def tell_lost(self, reason: str, fix: str) -> None:
        """Report, the first time, that features could not be written."""
        if not self._told:
            self._told = True
            self._files.report(
                f"feature cache {self._files.root}: cannot be written ({reason}); the run goes on without it; {fix}"
            )

    def _open_new_shards(self) -> None:
        """Open the shards that other processes or this one added since the last call."""
        try:
            names = sorted(e.name for e in os.scandir(self._folder) if e.name.endswith(SUFFIX))
        except OSError:
            return
        for name in names:
            if name in self._seen:
                continue
            try:
                opened = _open_shard(self._folder / name)
            except ArtifactError as error:
                self._seen.add(name)
                self._files.report(f"{error}; what it held is computed again")
                continue
            if opened is not None:
                keys, features = opened
                self._seen.add(name)
                self._places.update({key: (name, row) for row, key in enumerate(keys)})
                if len(self._mapped) < MOST_MAPPED:
                    self._mapped[name] = features


def _open_shard(file: Path) -> tuple[list[bytes], Features] | None:
    """Keys and mapped features [n, d] of a shard. None if the file is missing; ArtifactError if it is damaged: then
    it is deleted."""
    try:
        with file.open("rb") as stream:
            mapped = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError:
        return None
    except ValueError:  # an empty file cannot be mapped
        mapped = memoryview(b"")
    content = _parse_shard(mapped)
    if content is None and not _is_of_another_version(mapped):
        with contextlib.suppress(OSError):  # of another user
            file.unlink(missing_ok=True)
        raise ArtifactError(f"{file}: a damaged file of the feature cache is deleted")
    return content


def _is_of_another_version(mapped: memoryview) -> bool:
    """Whether a shard was written by an older or a newer autometa, which may still use it: it is passed over, and
    goes when it is the least recently used one."""
    magic = bytes(mapped[: len(MAGIC)])
    return magic.startswith(KIND) and magic != MAGIC


def _parse_shard(mapped: memoryview) -> tuple[list[bytes], Features] | None:
    """Keys and features [n, d] in the bytes of a shard; None if they are damaged."""
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
