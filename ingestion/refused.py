"""How a program of the command line refuses what it was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from ingestion.errors import InputError


class Refused(click.ClickException):
    """Bad input: one line, which names what is wrong and the fix, and status 2."""

    exit_code = 2


@contextmanager
def refusing() -> Iterator[None]:
    """Refuse what is found to be bad input in this block."""
    try:
        yield
    except InputError as error:
        raise Refused(str(error)) from error
