"""Settings of Sphinx for the documentation site: `scripts/docs` builds it. Nothing is fetched."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "autometa"
author = "the authors of autometa"
copyright = "the authors of autometa, Apache-2.0"
release = re.findall(
    r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
)[0]
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["images"]
myst_heading_anchors = 4
"""Anchors are those of GitHub, which `scripts/check_links.py` checks."""

default_role = "code"
"""Docstrings put code between single backticks."""
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"autometa {release}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["site.css"]
pygments_style = "friendly"
pygments_dark_style = "monokai"

PENDING = [
    name for name in ("challenges", "commands", "report") if not (ROOT / "docs" / f"{name}.md").exists()
]
if PENDING:
    suppress_warnings = ["toc.not_readable"]
