"""The page in a browser: no console error, no request, no page wider than the window, and tables that sort."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scoring import ScoringSettings, score

MakeRun = Callable[..., Path]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MOST_BYTES = 3_000_000

pytestmark = [pytest.mark.medium, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]


@pytest.fixture
def report(make_run: MakeRun, choices_content: dict[str, Any], samples_content: dict[str, Any]) -> Path:
    long = "a_name_without_any_space_" * 6
    choices_content["trials"][0]["name"] = choices_content["members"][0]["name"] = long
    samples_content["classes"][0]["name"] = long
    info = {
        "submission": long,
        "time_budget_s": 25,
        "memory_budget_bytes": 2_000_000_000,
        "stages": [{"name": "prepare", "seconds": 2}, {"name": "meta_train", "seconds": 8}],
        "notes": [long],
        "machine": {"system": long},
    }
    stages = [{"stage": long[:100], "predicted_s": 4, "actual_s": 5.0, "began_s": 1.0, "note": long}]
    files = {
        "choices.json": choices_content,
        "samples.json": samples_content,
        "ingestion.json": info,
        "stages.json": stages,
        "memory.json": {"meta-train": 500_000_000},
    }
    results = make_run(**{name: json.dumps(content) for name, content in files.items()})
    (results / "task_2.predict").unlink()
    return score(ScoringSettings(results, results.parent / "scores")).report


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="there is no playwright")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def test_the_page_in_a_browser(report: Path, browser: Any) -> None:
    assert report.stat().st_size < MOST_BYTES
    wrong: list[str] = []
    for width, scheme in ((360, "light"), (1440, "dark")):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        requests: list[str] = []
        page.on("request", lambda request, kept=requests: kept.append(request.url))
        page.goto(report.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
        _check_sorting(page)
        context.close()
    assert not wrong


def _check_sorting(page: Any) -> None:
    table = page.locator("section[aria-labelledby=trials] table")
    gained = table.locator("thead th", has_text="actual s")

    def column() -> list[str]:
        return [str(text) for text in table.locator("tbody td:nth-child(6)").all_text_contents()]

    assert column() == ["2.0", "9.0", "1.0"]
    gained.locator("button").click()
    assert column() == ["1.0", "2.0", "9.0"] and gained.get_attribute("aria-sort") == "ascending"
    gained.locator("button").press("Enter")
    assert column() == ["9.0", "2.0", "1.0"] and gained.get_attribute("aria-sort") == "descending"
