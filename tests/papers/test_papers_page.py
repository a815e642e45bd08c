"""`docs/papers.md` has the rows and figures of the recipes."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from write_papers import NOT_RUN, PAGE, page, row  # noqa: E402

from autometa.papers.layouts import LAYOUTS  # noqa: E402
from autometa.papers.recipes import Achieved, list_names, read_recipe  # noqa: E402


def test_the_table_is_that_of_the_recipes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "run: python scripts/write_papers.py"
    assert all(text.count(f"| `{name}` |") == 1 for name in list_names())


def test_a_row_says_what_was_published_and_what_came_of_it_here() -> None:
    named = read_recipe("maml/mini-5way-1shot")
    assert row(named).endswith(f"| `maml/mini-5way-1shot` | 48.70 ± 1.84 | {NOT_RUN} |")
    done = named.recipe.model_copy(update={"reproduced": Achieved(accuracy=48.123, interval=0.5)})
    assert row(type(named)(named.name, done)).endswith("| 48.70 ± 1.84 | 48.12 ± 0.50 |")


def test_every_kind_of_dataset_is_described() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{kind}` |" in text for kind in LAYOUTS)
