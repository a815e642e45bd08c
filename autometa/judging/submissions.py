"""What is judged: submissions, each told from others by its name and its content, and the units that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autometa.bundles.errors import BundleError
from autometa.bundles.shipped import find_bundle
from autometa.core.errors import ConfigError
from autometa.core.fingerprints import digest


@dataclass(frozen=True)
class Submission:
    """A bundle to judge. `digest`: of its files, so that a ledger knows whether they have changed."""

    name: str
    path: Path
    digest: str


@dataclass(frozen=True)
class Unit:
    """One run to do: a submission with a seed, which determines the split of the classes and the tasks."""

    submission: Submission
    seed: int

    @property
    def key(self) -> tuple[str, int]:
        """What tells units apart."""
        return self.submission.name, self.seed

    def __str__(self) -> str:
        return f"{self.submission.name}, seed {self.seed}"


def bundle_name(path: Path) -> str:
    """What a bundle is called in results: its folder or zip."""
    return path.resolve().name.removesuffix(".zip")


def find_submissions(names: Sequence[str]) -> list[Submission]:
    """Bundles by path, or baselines by name. ConfigError for one that is not there, or for two of the same name."""
    found: dict[str, Submission] = {}
    for name in names:
        try:
            path = find_bundle(name, "SUBMISSIONS")
            made = Submission(bundle_name(path), path, digest(path))
        except BundleError as error:
            raise ConfigError(str(error)) from error
        except OSError as error:
            raise ConfigError(
                f"SUBMISSIONS {name}: cannot be read ({error.strerror}); name another"
            ) from error
        if made.name in found:
            raise ConfigError(
                f"SUBMISSIONS {name}: there is another one called {made.name} ({found[made.name].path}); rename one"
            )
        found[made.name] = made
    return list(found.values())
