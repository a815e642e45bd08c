"""The report needs nothing beside itself and treats every name and reason as text."""

import base64
import copy
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from scoring import ScoringSettings, score

MakeRun = Callable[..., Path]

EVIL = "<script>alert('x')</script>$\\frac{$ \x1b[31m\n数\ud800\""


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def _tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    return parser.seen


@pytest.fixture
def evil_page(make_run: MakeRun, truth_content: dict[str, Any], tmp_path: Path) -> str:
    truth = copy.deepcopy(truth_content)
    truth["datasets"][0] = EVIL.replace("\ud800", "")
    for task in truth["tasks"][:2]:
        task["dataset"] = truth["datasets"][0]
    info: dict[str, Any] = dict.fromkeys(["submission", "protocol", "seed", "sandbox"], EVIL)
    info |= {"failures": {"1": EVIL}, "set_aside": [EVIL], "notes": [EVIL], "machine": {EVIL: EVIL}}
    info |= {"stages": [{"name": EVIL, "seconds": 0}]}
    files = {"truth.json": json.dumps(truth), "ingestion.json": json.dumps(info), "task_1.predict": None}
    return score(ScoringSettings(make_run(**files), tmp_path / "scores")).report.read_text(encoding="utf-8")


@pytest.mark.medium
def test_untrusted_text_stays_text(evil_page: str) -> None:
    assert "&lt;script&gt;" in evil_page
    tags = [tag for tag, _ in _tags(evil_page)]
    assert not [tag for tag in tags if tag in ("iframe", "object", "base", "form", "embed")]
    assert tags.count("script") == tags.count("link") == 1  # its own, and the empty icon
    assert "\x1b" not in evil_page


@pytest.mark.medium
def test_the_page_is_self_contained(evil_page: str) -> None:
    tags = _tags(evil_page)
    addresses = [
        value for _, attrs in tags for key, value in attrs.items() if key in ("src", "href", "srcset")
    ]
    assert addresses
    assert all(value and value.startswith(("data:image/jpeg;base64,", "data:,", "#")) for value in addresses)
    assert not re.search(r"url\(|@import", evil_page)
    assert not [key for _, attrs in tags for key in attrs if key.startswith("on")]
    assert not [tag for tag, _ in tags if tag == "img"]


@pytest.mark.medium
def test_the_page_allows_no_script_but_its_own(evil_page: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", evil_page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [attrs["content"] for tag, attrs in _tags(evil_page) if "http-equiv" in attrs]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ") and f"script-src 'sha256-{digest}'" in policy


def test_the_page_tells_the_run(make_run: MakeRun, tmp_path: Path) -> None:
    info = {
        "time_budget_s": 25,
        "submission": "baselines/protonet",
        "stages": [{"name": "probe", "seconds": 3}],
    }
    files = {"ingestion.json": json.dumps(info), "task_2.predict": "nan\n" * 6}
    summary = score(ScoringSettings(make_run(**files), tmp_path / "scores", debug_mode=0))
    page = summary.report.read_text(encoding="utf-8")
    for words in (
        "0.500",
        "12 s (50% of the budget)",
        "baselines/protonet",
        "probe",
        "not answered",
        "1 of 3",
    ):
        assert words in page
    assert page == (tmp_path / "scores" / "detailed_results.html").read_text(encoding="utf-8")
