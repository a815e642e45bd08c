"""Make the table of rows in `docs/papers.md` from the recipes.

    python scripts/write_papers.py [--check]

`--check` writes nothing; exit status 1 if the table is not what would be written.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from autometa.papers.recipes import NamedRecipe, list_recipes

PAGE = Path(__file__).resolve().parents[1] / "docs" / "papers.md"
START, END = "<!-- rows: made by scripts/write_papers.py -->", "<!-- end of rows -->"
HEAD = "| Paper | Recipe | Published | Here |\n|---|---|---|---|"
NOT_RUN = "not run (no data here)"


def main() -> None:
    """Write the table, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    text = PAGE.read_text(encoding="utf-8")
    wanted = page(text)
    if not parser.parse_args().check:
        PAGE.write_text(wanted, encoding="utf-8")
    elif text != wanted:
        sys.exit(f"{PAGE.name} is not up to date; run: python scripts/write_papers.py")


def page(text: str) -> str:
    """The page with the table as it should be."""
    rows = "\n".join([HEAD, *map(row, list_recipes())])
    block = re.compile(f"{re.escape(START)}.*{re.escape(END)}", re.DOTALL)
    return block.sub(lambda _: f"{START}\n{rows}\n{END}", text)


def row(named: NamedRecipe) -> str:
    """A line of the table."""
    recipe = named.recipe
    here = NOT_RUN if recipe.reproduced is None else str(recipe.reproduced)
    return f"| {recipe.paper}, {recipe.table} | `{named.name}` | {recipe.published} | {here} |"


if __name__ == "__main__":
    main()
