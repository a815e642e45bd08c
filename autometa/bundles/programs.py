"""The folders of a competition that hold programs: ingestion, scoring and the starting kit; and its image."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

from autometa.bundles import pages
from autometa.bundles.archive import Content
from autometa.bundles.files import list_files
from autometa.bundles.image import IMAGE_PACKAGES
from autometa.bundles.shipped import BASELINES, ROOT
from autometa.bundles.vendored import autometa_contents

PACKAGE_SUFFIXES = frozenset({".py", ".html", ".css", ".js", ".txt"})
INPUT, SUBMISSION, OUTPUT = "/app/input_data", "/app/ingested_program", "/app/output"
RESULTS, REFERENCE = "/app/input/res", "/app/input/ref"
"""Where the platform puts things, in the containers of the two programs."""
KIT_BUNDLES = {"random": False, "prototypical": True, "autometa": True}
"""Baselines of the starting kit, and whether they need `autometa/` beside them."""


def ingestion_command(time_budget_s: float, px: int) -> str:
    """The command of the ingestion program, which runs in the folder of the program."""
    return (
        f"python3 -m ingestion --input_data_dir={INPUT} --submission_dir={SUBMISSION} "
        f"--output_dir_ingestion={OUTPUT} --predictions_only=True --time_budget_s={time_budget_s:g} "
        f"--image_size={px} --cache_dir=/tmp/ingestion-images"
    )


def scoring_command() -> str:
    """The command of the scoring program."""
    return f"python3 -m scoring --results_dir={RESULTS} --truth={REFERENCE}/truth.json --output_dir_scoring={OUTPUT}"


def program_contents(package: str, command: str) -> Iterator[tuple[str, Content]]:
    """The folder of a program: its package and the `metadata.yaml` that the platform reads."""
    yield "metadata.yaml", f"command: {command}\n".encode()
    yield from package_contents(package)


def package_contents(package: str) -> Iterator[tuple[str, Content]]:
    """The files of `ingestion` or `scoring`."""
    for file in sorted((ROOT / package).rglob("*")):
        if file.is_file() and file.suffix in PACKAGE_SUFFIXES and "__pycache__" not in file.parts:
            yield f"{package}/{file.relative_to(ROOT / package).as_posix()}", file


def bundle_contents(name: str) -> Iterator[tuple[str, Content]]:
    """The files of a baseline, with `autometa/` where it needs that."""
    yield from ((file.name, file.path) for file in list_files(BASELINES / name))
    if KIT_BUNDLES[name]:
        yield from autometa_contents()


def kit_contents(time_budget_s: float) -> Iterator[tuple[str, Content]]:
    """The starting kit: bundles, both programs, and how to use them."""
    packages = " ".join(IMAGE_PACKAGES)
    yield "README.md", pages.KIT.format(packages=packages, seconds=f"{time_budget_s:g}").encode()
    for package in ("ingestion", "scoring"):
        yield from package_contents(package)
    for name in KIT_BUNDLES:
        yield from within(f"bundles/{name}", bundle_contents(name))


def image_contents() -> Iterator[tuple[str, Content]]:
    """The Dockerfile, with the versions that are installed here."""
    packages = [_pinned(name) for name in IMAGE_PACKAGES]
    yield "Dockerfile", pages.dockerfile(packages).encode()


def _pinned(name: str) -> str:
    version = importlib.metadata.version(name).partition("+")[
        0
    ]  # a local build, such as +cpu, is on no index
    return f"{name}=={version}"


def within(folder: str, contents: Iterator[tuple[str, Content]]) -> Iterator[tuple[str, Content]]:
    """The same files in a folder."""
    yield from ((f"{folder}/{name}", content) for name, content in contents)
