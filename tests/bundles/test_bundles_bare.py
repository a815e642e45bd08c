"""The bundle of autometa runs where only torch, torchvision and timm are installed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autometa.bundles import vendored
from autometa.bundles.errors import BundleError
from autometa.bundles.image import BARE_PACKAGES, closure
from autometa.bundles.solution import Options, make_solution
from autometa.bundles.vendored import VENDORED
from ingestion.bundle import open_bundle

SETTINGS = "time_budget: 30s\ntest: {tasks: 4, ways: 5, shots: 4, queries_per_class: 6}\n"


def link_packages(folder: Path) -> Path:
    """A folder that shows, of what is installed here, the bare packages and what they need."""
    folder.mkdir()
    for name in closure(BARE_PACKAGES):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (folder / top).is_symlink():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder


def test_what_comes_along_is_what_a_bare_machine_lacks() -> None:
    assert closure(BARE_PACKAGES).isdisjoint(VENDORED)
    assert {"torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "pyyaml"} <= closure(
        BARE_PACKAGES
    )


def test_what_an_older_version_does_not_ask_for_need_not_come_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """pydantic before 2.11 asks for no typing-inspection, which is not installed with it then."""
    monkeypatch.setattr(vendored, "NEWER", {"click": "pydantic"})
    monkeypatch.setattr(vendored, "needs_of", lambda _: ["annotated-types", "pydantic-core"])
    assert list(vendored.vendor_contents(["click"])) == []
    monkeypatch.setattr(vendored, "needs_of", lambda _: ["annotated-types", "click"])
    assert list(vendored.vendor_contents(["click"]))


def test_what_setup_py_installed_comes_along_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip before 23.1 installs so where `wheel` is missing; compiled parts stand in another list then."""
    monkeypatch.syspath_prepend(tmp_path)
    described, package = tmp_path / "old_one-1.0.egg-info", tmp_path / "old_one"
    described.mkdir()
    package.mkdir()
    (described / "PKG-INFO").write_text("Metadata-Version: 1.2\nName: old-one\nVersion: 1.0\n")
    (described / "SOURCES.txt").write_text("setup.py\nold_one/__init__.py\nold_one/fast.c\n")
    for name in ("__init__.py", "fast.so"):
        (package / name).touch()
    with pytest.raises(BundleError, match="old-one was installed without a list of its files, so"):
        list(vendored.vendor_contents(["old-one"]))
    (described / "installed-files.txt").write_text("../old_one/__init__.py\n../old_one/fast.so\nPKG-INFO\n")
    assert list(vendored.vendor_contents(["old-one"])) == [
        (f"vendor/old_one/{name}", package / name) for name in ("__init__.py", "fast.so")
    ]


@pytest.mark.medium
def test_autometa_with_its_weights_runs_with_torch_and_timm_alone(tmp_path: Path) -> None:
    archive = tmp_path / "autometa.zip"
    options = Options(dry_run_s=None, weights=True, backbones=("tf_efficientnet_lite0",))
    made = make_solution("autometa", archive, options)
    assert made.succeeded and made.carries == ("autometa", "vendor", "weights", "CARRIED.md")
    bundle = open_bundle(archive, tmp_path / "unpacked")
    (bundle / "settings.yaml").write_text(SETTINGS)
    packages, model = link_packages(tmp_path / "packages"), tmp_path / "model"
    model.mkdir()
    program = Path(__file__).with_name("bare_machine.py")
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(program), str(packages), str(bundle), str(model)],
        env=kept | {"HOME": str(tmp_path), "AUTOMETA_CACHES": "no"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["accuracy"] > 0.5
    for module in ("scipy", "optuna", "pydantic"):
        assert str(bundle / "vendor") in told["places"][module]
    assert "tf_efficientnet_lite0" in done.stdout
