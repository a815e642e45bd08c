"""What a check of a bundle found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (`error`) or may be wrong (`warning`), and where: a file, with its line if known."""

    kind: Literal["error", "warning"]
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.text}"


def error(where: str, text: str) -> Finding:
    """Something that makes the bundle fail."""
    return Finding("error", where, text)


def warning(where: str, text: str) -> Finding:
    """Something that may make it fail elsewhere."""
    return Finding("warning", where, text)


def fails(findings: list[Finding]) -> bool:
    """Whether one of them is an error."""
    return any(finding.kind == "error" for finding in findings)
