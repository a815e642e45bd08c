"""`docs/commands.md` is what the help of the program says."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from write_commands import PAGE, page  # noqa: E402


def test_the_page_of_commands_is_up_to_date() -> None:
    fix = "run: python scripts/write_commands.py"
    assert PAGE.read_text(encoding="utf-8") == page(), fix
    assert "## autometa backbones fetch" in page() and "Default: 2m." in page()
