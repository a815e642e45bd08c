"""What a bundle carries along so that it runs where only torch, torchvision and timm are installed.

`autometa/` is the part of this package that submissions use. `vendor/` holds distributions that it imports and that
such a machine lacks, copied from the ones installed here. `weights/` holds backbones. The bundle's own
`autometa/__init__.py` finds them; what is installed takes precedence over `vendor/`.
"""

from __future__ import annotations

import importlib.metadata
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from autometa.bundles.archive import Content
from autometa.bundles.errors import BundleError
from autometa.bundles.image import needs_of
from autometa.bundles.shipped import PACKAGE, ROOT

ROOMS = (
    "core", "executors", "data", "backbones", "heads", "evaluation", "learners", "planning", "model", "search",
    "systems",
)  # fmt: skip
"""The packages that a submission uses."""
VENDORED = (
    "annotated-types", "colorlog", "optuna", "psutil", "pydantic", "pydantic-core", "scipy", "typing-inspection",
)  # fmt: skip
"""What these import beyond torch, torchvision, timm and what those need. Optuna needs no SQLAlchemy in memory."""
NEWER = {"typing-inspection": "pydantic"}
"""Of these, what only newer versions of another one ask for."""
LEFT_OUT_FOLDERS = frozenset({"tests", "__pycache__", "include"})
LEFT_OUT_SUFFIXES = frozenset({".a", ".c", ".h", ".lib", ".pxd", ".pyc", ".pyi", ".pyx", ".f90", ".in"})

INIT = '''"""autometa, as it came with a bundle."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__version__ = "{version}"
_BUNDLE = Path(__file__).resolve().parents[1]

if (_BUNDLE / "vendor").is_dir() and str(_BUNDLE / "vendor") not in sys.path:
    sys.path.append(str(_BUNDLE / "vendor"))  # last: what is installed takes precedence
if (_BUNDLE / "weights").is_dir():
    _named = os.environ.get("AUTOMETA_WEIGHTS_DIR", "").split(os.pathsep)
    _folders = dict.fromkeys([*filter(None, _named), str(_BUNDLE / "weights")])
    os.environ["AUTOMETA_WEIGHTS_DIR"] = os.pathsep.join(_folders)
'''
README = """# What this bundle carries along

- `autometa/`: autometa {version} (Apache-2.0), as far as a submission uses it.
{weights}{vendor}
What is installed on the machine takes precedence over `vendor/`.
"""


def autometa_contents() -> Iterator[tuple[str, Content]]:
    """The files of `autometa/`, with an `__init__.py` that finds `vendor/` and `weights/`."""
    version = importlib.import_module("autometa").__version__
    yield "autometa/__init__.py", INIT.format(version=version).encode()
    yield "autometa/submission.py", PACKAGE / "submission.py"
    places = [ROOT / "LICENSE", *ROOT.glob("autometa-*.dist-info/licenses/LICENSE")]
    yield from (("autometa/LICENSE", place) for place in [p for p in places if p.is_file()][:1])
    for room in ROOMS:
        for file in sorted((PACKAGE / room).rglob("*")):
            if file.is_file() and file.suffix in {".py", ".json"}:
                yield f"autometa/{file.relative_to(PACKAGE).as_posix()}", file


def vendor_contents(names: Sequence[str] = VENDORED) -> Iterator[tuple[str, Content]]:
    """The files of those of these installed distributions that are asked for, under `vendor/`. BundleError names one
    that is not installed, or whose files are not known."""
    for name in names:
        try:
            if not _is_asked_for(name):
                continue
            installed = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as problem:
            raise BundleError(
                f"vendor/: {name} is not installed here, so it cannot come along; run: pip install {name}"
            ) from problem
        for file in _installed_files(name, installed):
            path = Path(str(installed.locate_file(file)))
            if _is_wanted(file) and path.is_file():
                yield f"vendor/{file.as_posix()}", path


def _installed_files(name: str, installed: importlib.metadata.Distribution) -> Sequence[PurePosixPath]:
    """Below the folder of packages. What pip installed by `setup.py` has another list than a wheel; `files` does
    not read that one before Python 3.12."""
    if installed.read_text("RECORD") is not None:
        return installed.files or []
    if (listed := installed.read_text("installed-files.txt")) is not None:
        return [
            PurePosixPath(line).relative_to("..") for line in listed.splitlines() if line.startswith("../")
        ]
    raise BundleError(
        f"vendor/: {name} was installed without a list of its files, so it cannot come along; run: "
        f"pip install --force-reinstall --no-deps {name}"
    )


def _is_asked_for(name: str) -> bool:
    """Whether the installed versions of the others ask for a distribution."""
    return name not in NEWER or name in needs_of(NEWER[name])


def _is_wanted(file: PurePosixPath) -> bool:
    inside = ".." not in file.parts and not file.is_absolute()
    return inside and LEFT_OUT_FOLDERS.isdisjoint(file.parts) and file.suffix not in LEFT_OUT_SUFFIXES


def platform_tag() -> str:
    """The Python and the system that compiled parts of `vendor/` are bound to."""
    return f"{sys.implementation.cache_tag} on {sysconfig.get_platform()}"


def _weights_line(name: str) -> str:
    from autometa.backbones.catalogue import find_spec  # noqa: PLC0415 - slow

    return f"- `weights/{name}.safetensors`: pretrained weights of {name} ({find_spec(name).licence}).\n"


def readme(backbones: Sequence[str], *, vendor: bool) -> bytes:
    """What came along, for who opens the zip file."""
    version = importlib.import_module("autometa").__version__
    weights = "".join(_weights_line(name) for name in backbones)
    parts = ""
    if vendor:
        named = ", ".join(
            f"{name} {importlib.metadata.version(name)}" for name in VENDORED if _is_asked_for(name)
        )
        parts = (
            f"- `vendor/`: {named}, with their licences. Compiled parts are for {platform_tag()}: elsewhere, "
            "install these packages.\n"
        )
    return README.format(version=version, weights=weights, vendor=parts).encode()
