"""The folder of a grid: a file for each point that is done, so that a kill loses one at most, and `budget.json`."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, Literal

from pydantic import ValidationError

from autometa.core.claims import claim_folder
from autometa.core.errors import ConfigError
from autometa.core.files import write_model
from autometa.core.fingerprints import fingerprint
from autometa.core.identities import CommonIdentity
from autometa.core.units import show_range
from autometa.tuning.grid import Place
from autometa.tuning.options import TuneOptions
from autometa.tuning.point import Point
from ingestion.disk import remove

MARK_FILE, IDENTITY_FILE, BUDGET_FILE, PAGE_FILE = (
    ".autometa-budget",
    "grid.json",
    "budget.json",
    "budget.html",
)
CHECK_FOLDER, RECOMMENDED_FILE = "recommended", "recommended.yaml"
OWN_FILES = (
    "points", "runs", "shared", CHECK_FOLDER, RECOMMENDED_FILE, IDENTITY_FILE, BUDGET_FILE, PAGE_FILE,
)  # fmt: skip
"""What a grid leaves in its folder."""
SAME_FOR_ALL = (
    "tasks_per_dataset", "query_per_class", "ways", "shots", "image_size", "image_shape", "seed", "protocol",
    "backbones", "preset", "device", "infer_limit", "adapt_limit", "max_model_size", "weights_dir", "download",
    "sandbox",
)  # fmt: skip
"""Options that all points of a grid must have in common to be compared."""


class Identity(CommonIdentity):
    """What the points of a grid have in common."""

    format: Literal["autometa-budget-grid-1"] = "autometa-budget-grid-1"

    @classmethod
    def of(cls, dataset: Path, options: TuneOptions) -> Identity:
        """Of a grid that is about to run."""
        values: dict[str, Any] = {name: getattr(options, name) for name in SAME_FOR_ALL}
        texts = {n: show_range(v) if isinstance(v, tuple) else str(v) for n, v in values.items()}
        return cls(dataset=str(dataset.resolve()), files=fingerprint(dataset), options=texts)


class Store:
    """The folder of one grid. Points lie in `points/NAME.json`, the files of their runs in `runs/NAME`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shared = folder / "shared"

    def claim(self, identity: Identity, *, resume: bool, overwrite: bool) -> IO[str]:
        """Reserve the folder as long as the returned file is open. ConfigError if it holds other files or another
        grid, another program uses it, or it cannot be written."""

        def clear() -> None:
            for name in OWN_FILES if overwrite else ():
                remove(self.folder / name)

        advice = "add --resume or --overwrite"
        claim = claim_folder(self.folder / MARK_FILE, "grid", advice, clear, goes_on=resume or overwrite)
        try:
            self._check_identity(identity)
        except ConfigError:
            claim.close()
            raise
        (self.folder / "points").mkdir(exist_ok=True)
        return claim

    def _check_identity(self, identity: Identity) -> None:
        file = self.folder / IDENTITY_FILE
        if not file.exists():
            write_model(file, identity)
            return
        try:
            earlier = Identity.model_validate_json(file.read_text("utf-8"))
        except (UnicodeDecodeError, ValidationError) as error:
            raise ConfigError(f"{file}: damaged, or of another version; add --overwrite") from error
        identity.refuse_other(earlier, f"the grid in {self.folder}")

    def run_folder(self, place: Place) -> Path:
        """Where the files of the run of a point are."""
        return self.folder / "runs" / place.name

    def save(self, point: Point) -> None:
        """Keep a point that is done."""
        write_model(self.folder / "points" / f"{Place.of(point).name}.json", point)

    def load(self) -> dict[str, Point]:
        """Points that are done, by name. ConfigError for a file that is damaged."""
        found = {}
        for file in sorted((self.folder / "points").glob("*.json")):
            try:
                found[file.stem] = Point.model_validate_json(file.read_text("utf-8"))
            except (UnicodeDecodeError, ValidationError) as error:
                raise ConfigError(
                    f"{file}: damaged, or of another version; delete it and add --resume"
                ) from error
        return found
