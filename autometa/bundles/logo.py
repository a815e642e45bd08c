"""A picture for a competition that brings none."""

from __future__ import annotations

import struct
import zlib

PX = 96
CELLS = 3
COLOURS = ((38, 70, 83), (42, 157, 143), (233, 196, 106), (244, 162, 97), (231, 111, 81))


def draw_logo() -> bytes:
    """A PNG of coloured squares: a small episode."""
    side = PX // CELLS
    rows = []
    for y in range(PX):
        colours = (COLOURS[(x // side + 2 * (y // side)) % len(COLOURS)] for x in range(PX))
        rows.append(b"\0" + bytes(channel for colour in colours for channel in colour))
    header = struct.pack(">IIBBBBB", PX, PX, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
