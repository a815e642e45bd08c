"""What several runs have in common, so that a later start goes on with them only if it would do the same."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from autometa.core.errors import ConfigError


class CommonIdentity(BaseModel):
    """A dataset and options, as text. `dataset`: where it lies; `files`: a digest of their names and sizes, "" where
    it is unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    files: str = ""
    options: dict[str, str]

    def refuse_other(self, there: CommonIdentity, holder: str) -> None:
        """ConfigError names what differs from those `there`, which a `holder` (a file or a folder) was begun with."""
        mine, found = ({"dataset": each.dataset, **each.options} for each in (self, there))
        for name in {**mine, **found}:  # an option that is in only one of them has its default in the other
            if found.get(name) != mine.get(name):
                raise ConfigError(
                    f"--resume: {holder} has {name.replace('_', '-')} {found.get(name)}, not {mine.get(name)}; give "
                    "the same, or name another folder"
                )
        if there.files and self.files and there.files != self.files:
            raise ConfigError(
                f"--resume: the files of {self.dataset} are others than those that {holder} began with; "
                "restore them, or name another folder"
            )
