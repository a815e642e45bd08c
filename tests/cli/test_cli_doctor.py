"""`autometa doctor`: findings, remedies and statuses, with what is missing taken away."""

from __future__ import annotations

import importlib.util
import json
import urllib.error
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from autometa.cli import checks, doctor, sandbox_checks
from autometa.cli.checks import Check, Finding
from autometa.cli.main import cli
from autometa.core.budget import MemoryBudget
from ingestion.confinement import Confinement
from ingestion.errors import InputError
from ingestion.gpu import CudaAnswer

OK = Finding("one", "ok", "all is well")
NOTE = Finding("two", "note", "it could be better", "make it so")
PROBLEM = Finding("three", "problem", "it is broken", "repair it")


def use(monkeypatch: pytest.MonkeyPatch, **table: Check) -> None:
    monkeypatch.setattr(doctor, "CHECKS", table)


def only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_notes_are_no_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, one=lambda: [OK], two=lambda: [NOTE])
    shown = CliRunner().invoke(cli, ["doctor"])
    assert shown.exit_code == 0
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["ok", "one", "all", "is", "well"],
        ["note", "two", "it", "could", "be", "better"],
        [">", "make", "it", "so"],
        ["no", "problems", "found"],
    ]


def test_a_problem_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, one=lambda: [OK, PROBLEM], two=lambda: [NOTE])
    shown = CliRunner().invoke(cli, ["doctor", "-q"])
    assert shown.exit_code == 1
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["problem", "three", "it", "is", "broken"],
        [">", "repair", "it"],
    ]
    shown = CliRunner().invoke(cli, ["doctor", "--json"])
    assert shown.exit_code == 1 and not shown.stderr
    content = json.loads(shown.stdout)
    assert content["problems"] == 1 and "torch" in content["versions"]
    assert content["findings"][1] == {
        "area": "three",
        "state": "problem",
        "what": "it is broken",
        "remedy": "repair it",
    }


@pytest.mark.parametrize(
    "error", [ImportError("no module\nnamed x"), OSError(5, "gone"), RuntimeError("CUDA")]
)
def test_a_check_that_fails_is_a_problem_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> Iterator[Finding]:
        yield OK
        raise error

    use(monkeypatch, bad=fail, two=lambda: [NOTE])
    shown = CliRunner().invoke(cli, ["doctor"])
    assert shown.exit_code == 1 and shown.exception is not None
    assert "bad       this cannot be checked" in shown.stdout and "make it so" in shown.stdout


@pytest.mark.medium
def test_this_machine_can_be_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = list(doctor.examine(doctor.CHECKS))
    assert {finding.area for finding in found} == set(doctor.CHECKS)
    assert not [finding for finding in found if "cannot be checked" in finding.what]
    assert all(finding.remedy for finding in found if finding.state != "ok")


def test_a_package_that_is_missing_is_a_problem_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"torch", "timm", "click"} <= set(checks.required()) and "pytest" not in checks.required()
    monkeypatch.setattr(checks, "required", lambda: ["torch", "no-such-package"])
    missing, versions = checks.check_packages()
    assert missing == Finding(
        "packages", "problem", "no-such-package is not installed", "pip install no-such-package"
    )
    assert versions.state == "ok" and "torch " in versions.what


def test_an_old_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(checks.check_python()).state == "ok"
    monkeypatch.setattr(checks.sys, "version_info", (3, 10))
    assert only(checks.check_python()).remedy == "install Python 3.11 or newer"


def test_too_little_memory_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryBudget, "of_machine", classmethod(lambda cls: cls(3 * 10**8)))
    (finding,) = (each for each in checks.check_machine() if each.what.startswith("memory"))
    assert finding.state == "problem" and "400MB or more" in finding.remedy


def test_a_sandbox_that_does_not_work_is_a_note_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(name: str) -> tuple[str, str]:
        raise InputError(f"--sandbox {name}: the program is not here; install it or use --sandbox auto")

    monkeypatch.setattr(sandbox_checks, "choose_sandbox", choose)
    bubblewrap, landlock, none = sandbox_checks.check_sandboxes()
    assert bubblewrap.what == "bubblewrap: the program is not here" and landlock.what.startswith("landlock: ")
    assert {each.state for each in (bubblewrap, landlock, none)} == {"note"}
    monkeypatch.setattr(sandbox_checks.shutil, "which", lambda _: None)
    assert "apt install bubblewrap" in next(iter(sandbox_checks.check_sandboxes())).remedy


def test_the_sandboxes_that_work_say_by_what_they_confine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_checks, "choose_sandbox", lambda name: (name, f"sandbox: {name} (as it is)"))
    monkeypatch.setattr(sandbox_checks, "describe_confinement", lambda name: Confinement(*["kept"] * 6))
    bubblewrap, landlock, strict = sandbox_checks.check_sandboxes()
    assert {each.state for each in (bubblewrap, landlock, strict)} == {"ok"}
    assert landlock.what == "landlock: files: kept; network: kept; processes: kept; system calls: kept"
    assert strict.what == "--sandbox strict: strict (as it is)"
    monkeypatch.setattr(
        sandbox_checks, "describe_confinement", lambda name: Confinement("kept", "open: UDP", *["kept"] * 4)
    )
    _, landlock, _ = sandbox_checks.check_sandboxes()
    assert landlock.state == "note" and "network: open: UDP" in landlock.what
    assert landlock.remedy.startswith("install bubblewrap")


def answer(inside: CudaAnswer, outside: CudaAnswer) -> Callable[..., CudaAnswer]:
    def ask(confine: Callable[[list[str]], list[str]], environment: Any) -> CudaAnswer:
        assert Path(environment["HOME"]).is_dir()
        return inside if confine(["true"]) != ["true"] else outside

    return ask


def test_a_gpu_that_only_the_parent_can_use_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    blocked = answer(CudaAnswer(0, "the CUDA driver finds no GPU"), CudaAnswer(2))
    monkeypatch.setattr(checks, "ask_in_process", blocked)
    finding = checks.ask_child("bubblewrap")
    assert finding.state == "problem"
    assert "this machine has 2, but within the sandbox the CUDA driver finds no GPU" in finding.what
    assert "--sandbox none" in finding.remedy
    monkeypatch.setattr(checks, "ask_in_process", answer(CudaAnswer(2), CudaAnswer(2)))
    assert checks.ask_child("bubblewrap") == Finding("GPU", "ok", "GPU: the submission can use 2")


def test_a_gpu_that_pytorch_cannot_use_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr(checks, "has_cuda_device", lambda: True)
    monkeypatch.setattr(checks, "ask_child", lambda _: OK)
    first, second = checks.check_gpu()
    assert first.state == "problem" and "pytorch.org" in first.remedy and second is OK
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert only(checks.check_gpu()).remedy == "unset CUDA_VISIBLE_DEVICES"
    monkeypatch.setattr(checks, "has_cuda_device", lambda: False)
    assert only(checks.check_gpu()).state == "ok"


def test_an_engine_that_is_missing_is_a_note_with_the_command(
    monkeypatch: pytest.MonkeyPatch, on_the_cpu: None
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else object())
    found = {each.what.split()[0]: each for each in checks.check_engines()}
    assert found["eager"].state == found["onnxruntime"].state == "ok"
    assert found["openvino"].state == "note" and found["openvino"].remedy == "pip install openvino"
    assert "graph-float16" not in found  # of GPUs


@pytest.mark.parametrize(("count", "state"), [(0, "problem"), (1, "note"), (3, "ok")])
def test_weights(monkeypatch: pytest.MonkeyPatch, count: int, state: str) -> None:
    specs = [SimpleNamespace(name=f"net{number}") for number in range(count)]
    monkeypatch.setattr("autometa.backbones.installed_backbones", lambda: specs)
    finding = only(checks.check_weights())
    assert finding.state == state and ("autometa backbones fetch" in finding.remedy) == (state != "ok")


def test_caches_have_a_size_and_a_way_out_where_they_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(bytes(20_000_000))
    assert checks.cache_finding("images", tmp_path, "CACHE") == Finding(
        "caches", "ok", f"images: 0.02 GB in {tmp_path}"
    )
    assert checks.cache_finding("images", tmp_path / "new" / "folder", "CACHE").state == "ok"
    monkeypatch.setattr(checks.os, "access", lambda *_: False)
    finding = checks.cache_finding("images", tmp_path, "CACHE")
    assert finding.state == "note" and finding.remedy == "set CACHE to another folder"
    assert checks.cache_finding("images", tmp_path / "deep" / "file" / "below", "CACHE").state == "note"


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in checks.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example/")
    asked: list[str] = []
    assert only(checks.check_hub(asked.append)).what == "http://hub.example can be reached"
    assert asked == ["http://hub.example"]

    def fail(_: str) -> None:
        raise urllib.error.URLError("no route")

    finding = only(checks.check_hub(fail))
    assert finding.state == "note" and "(no route)" in finding.what
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert only(checks.check_hub(fail)).remedy == "unset HF_HUB_OFFLINE to fetch"
