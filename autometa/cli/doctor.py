"""`autometa doctor`: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict

import click

import autometa
from autometa.cli import checks, sandbox_checks
from autometa.cli.checks import Check, Finding
from autometa.cli.options import CONTEXT, examples, json_option, level, level_options, print_json
from autometa.cli.output import make_console, print_finding
from autometa.cli.program import FAILED, Command
from autometa.cli.weights_check import check_digests
from autometa.core.errors import FAILURES, describe
from autometa.core.progress import QUIET

CHECKS: dict[str, Check] = {
    "Python": checks.check_python,
    "packages": checks.check_packages,
    "machine": checks.check_machine,
    "libraries": checks.check_libraries,
    "sandbox": sandbox_checks.check_sandboxes,
    "GPU": checks.check_gpu,
    "engines": checks.check_engines,
    "weights": checks.check_weights,
    "digests": check_digests,
    "caches": checks.check_caches,
    "hub": checks.check_hub,
}
UNCHECKABLE = (*FAILURES, ImportError, AttributeError, TypeError, subprocess.SubprocessError)
"""What a check raises on a machine where things are missing or broken."""


@click.command(
    cls=Command, context_settings=CONTEXT, epilog=examples("autometa doctor", "autometa doctor --json")
)
@json_option("the findings and the versions of packages")
@level_options
def doctor(as_json: bool) -> None:
    """Look at this machine: packages, sandboxes, GPU, engines, weights and caches, each with its remedy.

    Exit status: 0 without problems, 1 with one. Notes are things that runs can do without.
    """
    found = []
    console, quiet = make_console(stderr=as_json), level() == QUIET
    for finding in examine(CHECKS):
        found.append(finding)
        if not as_json and (finding.state == "problem" or not quiet):
            print_finding(console, finding)
    problems = sum(finding.state == "problem" for finding in found)
    if as_json:
        record = {"autometa": autometa.__version__, "problems": problems, "versions": checks.versions()}
        print_json(record | {"findings": [asdict(finding) for finding in found]})
    elif not quiet:
        console.print(f"{problems or 'no'} problem{'' if problems == 1 else 's'} found")
    sys.exit(FAILED if problems else 0)


def examine(table: dict[str, Check]) -> Iterator[Finding]:
    """All findings. A check that fails is a finding, too."""
    for area, check in table.items():
        try:
            yield from check()
        except UNCHECKABLE as error:
            text = " ".join(describe(error).split())[:300]
            yield Finding(
                area, "problem", f"this cannot be checked ({text})", "fix what is named, then try again"
            )
