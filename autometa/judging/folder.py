"""The folder of a judging: its ledger, the files of its runs, and the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING

from autometa.core.claims import claim_folder
from autometa.core.fingerprints import fingerprint
from autometa.core.journals import write_whole
from autometa.core.options import RunOptions
from autometa.core.units import show_value
from autometa.judging.ledger import Identity, Ledger
from autometa.judging.options import OWN, JudgeOptions
from ingestion.disk import remove

if TYPE_CHECKING:
    from autometa.judging.verdict import (
        Verdict,  # imports torch, which no judge needs while it waits for runs
    )

MARK_FILE, LEDGER_FILE, VERDICT_FILE, PAGE_FILE = (
    ".autometa-judging",
    "runs.jsonl",
    "judging.json",
    "judging.html",
)
OWN_FILES = ("runs", LEDGER_FILE, VERDICT_FILE, PAGE_FILE)
"""What a judging leaves in its folder."""


def claim_judging(folder: Path, *, resume: bool, overwrite: bool) -> IO[str]:
    """Reserve the folder as long as the returned file is open; an earlier judging in it stays until `clear_judging`.
    ConfigError if it holds other files, another program uses it, or it cannot be written."""
    advice = "add --resume or --overwrite"
    return claim_folder(folder / MARK_FILE, "judging", advice, goes_on=resume or overwrite)


def clear_judging(folder: Path) -> None:
    """Delete an earlier judging."""
    for name in OWN_FILES:
        remove(folder / name)


def ledger_of(folder: Path) -> Ledger:
    """The ledger in a folder."""
    return Ledger(folder / LEDGER_FILE)


def identity_of(dataset: Path, options: JudgeOptions, memory_bytes: int) -> Identity:
    """What all runs have in common: the dataset, and every option of a run that can change its result."""
    shown = {
        name: show_value(field, getattr(options, name))
        for name, field in RunOptions.model_fields.items()
        if name not in OWN
    }
    texts = {name: str(value) for name, value in shown.items() if value is not None}
    texts |= {"memory_budget": f"{memory_bytes}B", "jobs": str(options.jobs)}
    return Identity(dataset=str(dataset.resolve()), files=fingerprint(dataset), options=texts)


def earlier_memory(ledger: Ledger) -> int | None:
    """The memory budget of each run of an earlier judging, which a later start takes over: free memory may be another
    one today. None if there is none."""
    earlier = ledger.identity()
    return None if earlier is None else int(earlier.options["memory_budget"].removesuffix("B"))


def write_verdict(folder: Path, verdict: Verdict) -> Path:
    """`judging.json` and the page, whose path is returned."""
    from autometa.judging.page import render_page  # noqa: PLC0415 - slow to import

    write_whole(folder / VERDICT_FILE, verdict.model_dump_json(indent=1))
    write_whole(folder / PAGE_FILE, render_page(verdict, folder))
    return folder / PAGE_FILE
