"""`python -m autometa.learners`: reproductions of published tables. It is `autometa reproduce`, too."""

from __future__ import annotations

import click

from autometa.cli.options import CONTEXT
from autometa.cli.program import Group
from autometa.cli.reproduce import reproduce


@click.group(cls=Group, context_settings=CONTEXT)
def main() -> None:
    """Meta-learners: reproduce what papers report of them."""


main.add_command(reproduce)

if __name__ == "__main__":
    main()
