"""The pages of the site: all are in the contents, every learner has a formula and a source, every table a command."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import click
import pytest

import autometa
import ingestion
import scoring
from autometa.cli.main import cli
from autometa.heads import HEADS
from autometa.learners.recipe import LEARNERS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def test_every_page_is_in_the_contents_once() -> None:
    contents = re.findall(r"```\{toctree\}\n(?::.*\n)*\n([^`]*)```", read("index"))
    entries = "".join(contents).split()
    assert len(entries) == len(set(entries))
    assert {page.stem for page in PAGES} == {"index", *entries}


def formulas(page: str) -> str:
    return "\n".join(code for kind, code in BLOCK.findall(page) if kind == "text")


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_has_a_formula_and_a_source(name: str) -> None:
    page = read("learners")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    source = row.rstrip("| ").split("|")[-1]
    assert re.search(r"(19|20)\d\d", source), row
    assert re.search(rf"^{name}\s+\S", formulas(page), re.MULTILINE), name


def test_every_source_that_learners_cite_is_listed() -> None:
    body, _, listed = read("learners").partition("\n## Sources\n")
    rows = [line for line in body.splitlines() if line.startswith("| `")]
    cited = {
        each
        for row in rows
        for each in re.findall(r"[A-Z][\w-]+ (?:et al\. |& [A-Z]\w+ )?(?:19|20)\d\d", row)
    }
    cited = {each for each in cited if not each.startswith("NeurIPS")}
    known = set(re.findall(r"^\| ([A-Z].*?(?:19|20)\d\d) \|", listed, re.MULTILINE))
    assert cited and cited <= known, cited - known


@pytest.mark.parametrize("name", HEADS)
def test_a_head_has_a_row(name: str) -> None:
    assert f"| `{name}` |" in read("heads")


def test_every_table_of_results_has_its_command() -> None:
    section = ""
    tables = 0
    for line in read("results").splitlines():
        section = line if re.match(r"#{2,3} ", line) else f"{section}\n{line}"
        if line.startswith("|---"):
            tables += 1
            assert "python benchmarks/" in section, section
    assert tables > 10


QUESTIONS = re.split(r"^## ", read("questions"), flags=re.MULTILINE)[1:]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda text: text.partition("\n")[0])
def test_a_question_has_a_short_answer(question: str) -> None:
    title, _, answer = question.partition("\n")
    assert title.endswith(("?", "."))
    assert 5 < len(answer.split()) < 110


OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def commands(page: str) -> list[str]:
    """Lines that begin with `autometa`, in blocks and in code within lines; continued ones as one."""
    shell = [code.replace("\\\n", " ") for kind, code in BLOCK.findall(page) if kind == "sh"]
    lines = [line for code in shell for line in code.splitlines()]
    inline = [code.replace("\n", " ") for code in re.findall(r"`(autometa [^`]+)`", BLOCK.sub("", page))]
    return [line.partition("#")[0].strip() for line in [*lines, *inline] if line.startswith("autometa ")]


def test_commands_are_found() -> None:
    page = "`autometa\nrun` and `autometa fit D -o M`\n```sh\nautometa run \\\n  --seed 1  # why\nls\n```\n"
    assert commands(page.replace("`autometa\nrun`", "`autometa run`")) == [
        "autometa run    --seed 1",
        "autometa run",
        "autometa fit D -o M",
    ]


COMMANDS_OF_PAGES = sorted({(page.stem, line) for page in PAGES for line in commands(read(page.stem))})


@pytest.mark.parametrize(("page", "line"), COMMANDS_OF_PAGES)
def test_a_command_and_its_options_are_there(page: str, line: str) -> None:
    command: click.Command = cli
    context = click.Context(command, info_name="autometa")
    words = line.split()[1:]
    while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command, context = found, click.Context(found, parent=context)
    known = {name for each in command.get_params(context) for name in (*each.opts, *each.secondary_opts)}
    assert set(OPTION.findall(" ".join(words))) <= known, line


@pytest.mark.parametrize("package", [autometa, ingestion, scoring], ids=lambda package: package.__name__)
def test_the_reference_has_every_public_name(package: ModuleType) -> None:
    section = read("api").partition(f"\n## {package.__name__}\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\.\. auto\w+:: (\w+)$", section, re.MULTILINE))
    assert named == set(package.__all__) - {"__version__"}
