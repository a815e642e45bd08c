"""Check that the links of the documentation lead somewhere: files in the repository, and headings in them.

    python scripts/check_links.py

Nothing is fetched: links to other hosts are passed over. Prints what is broken; exit status 1 if anything is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)[^)]*\)")
LINK = re.compile(r"\[[^\[\]]*\]\(<?([^)\s>]+)[^)]*\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def pages(root: Path = ROOT) -> list[Path]:
    """All Markdown files that Git knows or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / line for line in listed.splitlines() if (root / line).is_file()]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page: the same heading again gets a number."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def links(text: str) -> list[str]:
    """The targets of all links and images of a page that are not in code."""
    prose = CODE.sub("`code`", FENCE.sub("", text))
    without_images = IMAGE.sub("image", prose)
    return [*LINK.findall(without_images), *IMAGE.findall(prose), *REFERENCE.findall(prose)]


def broken_links(page: Path) -> list[str]:
    """What is wrong with the links of a page, one line each."""
    text, wrong = page.read_text(encoding="utf-8"), []
    for link in links(text):
        if ELSEWHERE.match(link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            wrong.append(f"{link}: no such file")
        elif anchor and (target.suffix != ".md" or anchor not in anchors(target.read_text(encoding="utf-8"))):
            wrong.append(f"{link}: no such heading")
    return wrong


def main() -> None:
    """Check all pages."""
    wrong = [f"{page.relative_to(ROOT)}: {line}" for page in pages() for line in broken_links(page)]
    print("\n".join(wrong) if wrong else f"links of {len(pages())} pages lead somewhere")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
