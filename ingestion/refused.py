"""How a program of the command line refuses what it was given."""

from __future__ import annotations

import click


class Refused(click.ClickException):
    """Bad input: one line, which names what is wrong and the fix, and status 2."""

    exit_code = 2
