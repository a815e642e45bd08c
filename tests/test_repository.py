"""Files that others read: citation, image of a container, hooks, forms of issues."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from autometa.core.options import RunOptions

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_citation_has_what_the_format_requires_and_the_version_of_the_project() -> None:
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    for work in (citation, *citation["references"]):
        assert all("name" in one or "family-names" in one for one in work["authors"])
    assert all({"type", "title", "authors"} <= each.keys() for each in citation["references"])


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_a_form_of_issues_is_complete(form: str) -> None:
    content = read(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert {"name", "description", "body"} <= content.keys()
    asked = [part for part in content["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked) >= 3
    assert any(part.get("validations", {}).get("required") for part in asked)
    for path in re.findall(r"[\w/]+\.md", str(content)):
        assert (ROOT / path).exists(), path


def test_hooks_run_what_is_here() -> None:
    hooks = [hook for repository in read(".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]]
    checks = (ROOT / "scripts" / "check").read_text(encoding="utf-8")
    for hook in hooks:
        assert hook["language"] == "system"
        command = re.sub(r" --force-exclude", "", hook["entry"])
        assert command in checks, command


def test_the_container_is_built_from_the_wheel_and_has_the_extras_that_it_names() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    arguments = dict(re.findall(r'^ARG (\w+)="?([^"\n]*)"?$', "\n".join(lines), re.MULTILINE))
    assert arguments["TORCH_INDEX"] == ""
    assert set(arguments["EXTRAS"].split(",")) <= PROJECT["optional-dependencies"].keys()
    assert f"Programming Language :: Python :: {arguments['PYTHON']}" in PROJECT["classifiers"]
    assert any("build --wheel" in line for line in lines)
    assert sum(line.startswith("FROM ") for line in lines) == 2
    assert lines[-2:] == ['ENTRYPOINT ["autometa"]', 'CMD ["--help"]']


def test_the_security_policy_names_every_sandbox() -> None:
    policy = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    options = re.search(r"`--sandbox ([\w|]+)`", policy)
    assert options is not None
    assert tuple(options[1].split("|")) == get_args(RunOptions.model_fields["sandbox"].annotation)
