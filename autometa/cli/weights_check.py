"""What `autometa doctor` finds out about weights that came with packages."""

from __future__ import annotations

from collections.abc import Iterator

from autometa.cli.checks import Finding, State

STATES: dict[str, State] = {"ok": "ok", "unknown": "note", "wrong": "problem"}


def check_digests() -> Iterator[Finding]:
    """Whether packaged weights are what was published."""
    from autometa.backbones.verify import verify_packaged  # noqa: PLC0415 - imports torch

    found = list(verify_packaged())
    for each in found:
        if each.state != "ok":
            yield Finding("digests", STATES[each.state], each.text, each.remedy or "see docs/backbones.md")
    right = sum(each.state == "ok" for each in found)
    if right:
        yield Finding(
            "digests", "ok", f"{right} of {len(found)} packages have the weights that were published"
        )
