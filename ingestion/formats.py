"""What Pillow and its plug-ins can open: suffixes, and files of any of these formats as images.

A JPEG is scaled while it is read, so its size does not matter. Other images must fit into memory as they are.
"""

from __future__ import annotations

import importlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

HEIF_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
REMEDIES = dict.fromkeys(HEIF_SUFFIXES, "pip install pillow-heif") | {
    ".avif": "Pillow 11.3 or newer reads them"
}
"""What to do where images of a suffix cannot be read."""
_NO_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
"""Formats that Pillow knows, but for which it starts another program or has no decoder."""
_BEHIND_ANOTHER = frozenset({"MPO"})
"""Formats that are opened as another one, here as JPEG."""
_JPEG_START = b"\xff\xd8\xff"
_USUAL_MOST_PIXELS = 89_478_485
_PLUGIN_ERRORS = (
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What decoders raise for damaged files, beside OSError and ValueError."""
UNUSABLE = (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)
"""What `load_image` raises for a file that is no usable image."""


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes, in lower case with their dot, of files that can be read."""
    _register_plugins()
    readable = (set(Image.OPEN) | _BEHIND_ANOTHER) - _NO_PICTURES
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in readable)


@cache
def _register_plugins() -> None:
    Image.init()
    if find_spec("pillow_heif") is not None:
        importlib.import_module("pillow_heif").register_heif_opener()


def open_image(stream: IO[bytes]) -> Image.Image:
    """The image, of which only the header is read so far. A JPEG may be of any size.

    Raises OSError if it is none, Image.DecompressionBombError if it is too large.
    """
    start = stream.read(len(_JPEG_START))
    stream.seek(0)
    try:
        if start == _JPEG_START:
            return JpegImagePlugin.jpeg_factory(stream)
        return _open_any(stream)
    except _PLUGIN_ERRORS as error:
        raise OSError(f"damaged ({type(error).__name__}: {error})") from error
    except Image.DecompressionBombError as error:
        raise _too_large(str(error).partition(" exceeds")[0]) from error


def _open_any(stream: IO[bytes]) -> Image.Image:
    try:
        return Image.open(stream)
    except UnidentifiedImageError:
        _register_plugins()
        stream.seek(0)
        return Image.open(stream)


def load_image(data: bytes, px: int) -> Image.Image:
    """The image, upright as its EXIF data say; a JPEG at the smallest size that it is stored in, but `px` or more.

    Raises one of UNUSABLE if the data is no usable image.
    """
    try:
        with open_image(io.BytesIO(data)) as image:
            whole = image.width * image.height
            image.draft("RGB", (px, px))
            held = whole if image.info.get("progressive") else image.width * image.height
            if held > 2 * (Image.MAX_IMAGE_PIXELS or _USUAL_MOST_PIXELS):
                raise _too_large(f"Image size ({whole} pixels)")
            return ImageOps.exif_transpose(image)
    except _PLUGIN_ERRORS as error:
        raise ValueError(f"damaged ({type(error).__name__}: {error})") from error


def _too_large(size: str) -> Image.DecompressionBombError:
    most = 2 * (Image.MAX_IMAGE_PIXELS or _USUAL_MOST_PIXELS)
    return Image.DecompressionBombError(
        f"{size[:1].lower()}{size[1:]} is more than the {most} that are decoded; make it smaller, or save it as "
        "a JPEG, which is scaled while it is read"
    )


def reason_of(error: Exception, file: Path) -> str:
    """Why a file is no usable image, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow knows" if file.exists() else "no such file"
    if "truncated" in str(error).lower():
        return f"cut short, copy it again ({error})"
    if str(error).startswith("damaged"):
        return str(error)
    return f"{type(error).__name__}: {error}"


def read_image_size(file: Path) -> tuple[int, int] | None:
    """Width and height of an image as its header says; None where it cannot be read."""
    try:
        with file.open("rb") as stream, open_image(stream) as image:
            return image.size
    except UNUSABLE:
        return None


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """No warnings of Pillow about single files, in all threads: what is wrong with them is told in another way."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield
