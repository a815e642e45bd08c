"""`autometa playground`: what it says where it cannot start, and that it works in a browser."""

from __future__ import annotations

import csv
import importlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autometa.classifier import playground
from autometa.cli.main import cli
from autometa.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
LETTERS = ROOT / "examples" / "demo" / "LETTERS"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
START_MS = 60_000


def test_without_gradio_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise ConfigError("the playground needs the package gradio")

    monkeypatch.setattr(playground, "import_gradio", missing)
    shown = CliRunner().invoke(cli, ["playground", "auto"])
    assert (shown.exit_code, shown.output) == (2, "Error: the playground needs the package gradio\n")


def test_a_folder_without_a_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playground, "import_gradio", lambda: None)
    shown = CliRunner().invoke(cli, ["playground", str(tmp_path)])
    assert shown.exit_code == 2
    assert shown.output.count("\n") == 1 and str(tmp_path) in shown.output


def test_a_port_is_a_number_of_a_port() -> None:
    shown = CliRunner().invoke(cli, ["playground", "auto", "--port", "0"])
    assert shown.exit_code == 2
    assert "--port" in shown.output


@pytest.fixture
def chromium() -> Iterator[Any]:
    """A headless browser. What it needs is in no extra for tests, so the test runs where all of it is there."""
    for package in ("gradio", "playwright"):
        pytest.importorskip(package, reason=f"needs {package}")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    driver = importlib.import_module("playwright.sync_api")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """The command on a free port; the address of its page."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    command = [sys.executable, "-m", "autometa", "playground", *arguments, "--port", port, "--no-browser"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.match(r"http://127\.0\.0\.1:\d+/", line)
            assert address is not None, line
            yield address[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def letters(n: int, each: int) -> list[list[str]]:
    """Files of `each` images of the first `n` letters of the demo."""
    found: dict[str, list[str]] = {}
    with (LETTERS / "labels.csv").open() as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["CATEGORY"], []).append(str(LETTERS / "images" / row["FILE_NAME"]))
    return [files[:each] for files in found.values()][:n]


@pytest.mark.medium
def test_images_are_dropped_in_a_browser_and_classified(chromium: Any) -> None:
    first, second = letters(2, each=4)
    elsewhere: list[str] = []
    with served("auto") as address:
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(START_MS)
        page.on("request", lambda request: note_elsewhere(request.url, address, elsewhere))
        page.goto(address)
        page.get_by_text("Drop images of at least two classes").wait_for()
        page.get_by_label("Name of class 1").fill("first letter")
        for place, files in enumerate((first, second)):
            page.locator("input[type=file][multiple]").nth(place).set_input_files(files[:3])
            page.locator(".grid-wrap").nth(place).wait_for()
        page.locator("input[type=file]:not([multiple])").set_input_files(first[3])
        answer = page.get_by_test_id("label-output-value")
        answer.wait_for()
        assert answer.inner_text().strip() == "first letter"
        page.get_by_label("number input for Classes").fill("3")
        page.get_by_label("Name of class 3").wait_for()
        page.close()
    assert elsewhere == []


def note_elsewhere(url: str, address: str, found: list[str]) -> None:
    if not url.startswith((address, "data:", "blob:")):
        found.append(url)
