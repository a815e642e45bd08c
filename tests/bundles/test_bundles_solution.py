"""Solutions: what goes into the zip file, what is found wrong, and that it runs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from synthetic import MakeBundle

from autometa.bundles.errors import BundleError
from autometa.bundles.files import list_files
from autometa.bundles.solution import Options, Solution, make_solution
from autometa.cli.bundle import bundle as command

ROOT = Path(__file__).parents[2]
QUICK = Options(dry_run_s=None)


@pytest.fixture
def folder(make_bundle: MakeBundle) -> Path:
    """A sound bundle without `metadata`."""
    return make_bundle()


def texts(solution: Solution) -> str:
    return "\n".join(map(str, solution.findings))


@pytest.mark.medium
def test_links_become_files_and_caches_and_hidden_files_stay_out(folder: Path, tmp_path: Path) -> None:
    (folder / "api.py").symlink_to(ROOT / "ingestion" / "api.py")
    (folder / "helpers").mkdir()
    (folder / "helpers" / "net.py").write_text("LAYERS = 3\n")
    (folder / "same.py").symlink_to("helpers/net.py")
    (folder / "__pycache__").mkdir()
    for name in ("__pycache__/model.cpython-311.pyc", ".hidden", "model.pyc"):
        (folder / name).touch()
    made = make_solution(str(folder), tmp_path / "s.zip", QUICK)
    assert made.succeeded, texts(made)
    assert "metadata: is missing, so it was added" in texts(made)
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert archive.namelist() == ["api.py", "helpers/net.py", "metadata", "model.py", "same.py"]
        assert archive.read("api.py") == (ROOT / "ingestion" / "api.py").read_bytes()
        assert archive.read("same.py") == b"LAYERS = 3\n"


@pytest.mark.medium
def test_the_same_files_give_the_same_zip(folder: Path, tmp_path: Path) -> None:
    (folder / "metadata").touch()
    for name in ("a.zip", "b.zip"):
        assert make_solution(str(folder), tmp_path / name, QUICK).succeeded
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    again = make_solution(str(tmp_path / "a.zip"), tmp_path / "c.zip", QUICK)
    assert again.succeeded and (tmp_path / "c.zip").read_bytes() == (tmp_path / "a.zip").read_bytes()


def test_links_that_lead_elsewhere_are_refused(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    (folder / "net.py").symlink_to(secret)
    assert "outside the bundle; copy the file into it" in texts(
        make_solution(str(folder), tmp_path / "s.zip")
    )
    for target, named in (("nowhere", "where there is no file"), (str(tmp_path), "a link to a folder")):
        (folder / "net.py").unlink()
        (folder / "net.py").symlink_to(target)
        with pytest.raises(BundleError, match=named):
            list_files(folder)
    assert not (tmp_path / "s.zip").exists()


MODEL = """\
import torch
{imports}
from api import Learner, MetaLearner, Predictor

class MyMetaLearner({base}):
    def meta_fit(self, {meta_fit}):
        return MyLearner()

class MyLearner(Learner):
    def fit(self, support_set): return MyPredictor()
    def save(self, path_to_save): pass
    {load}

class MyPredictor(Predictor):
    def predict(self, query_set): return None
"""
SOUND = {
    "imports": "",
    "base": "MetaLearner",
    "meta_fit": "train, valid",
    "load": "def load(self, path): pass",
}


@pytest.mark.medium
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"meta_fit": "train"}, "model.py:6: MyMetaLearner.meta_fit is called with 2 arguments after self"),
        ({"base": "object"}, "model.py: MyMetaLearner does not derive from MetaLearner of api"),
        ({"load": ""}, "model.py: MyLearner lacks the method load"),
        ({"imports": "import no_such_module.part"}, "model.py:2: imports `no_such_module`, which is not installed"),
        ({"imports": "import ingestion"}, "model.py:2: imports `ingestion`, which submissions do not have"),
        ({"imports": "def f(:"}, "model.py:2: is no Python"),
        ({"imports": "1 / 0"}, "model.py:2: cannot be imported: ZeroDivisionError: division by zero"),
        ({"imports": "import os; os._exit(3)"}, "model.py: its import ended the process with status 3"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, changed: dict[str, str], expected: str) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.py").write_text(MODEL.format(**(SOUND | changed)))
    made = make_solution(str(folder), tmp_path / "s.zip", QUICK)
    assert not made.succeeded and made.archive is None
    assert f"error: {expected}" in texts(made)


@pytest.mark.medium
def test_modules_of_a_folder_that_the_bundle_puts_on_its_path_are_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "own_module.py").write_text("VALUE = 1\n")
    path = "sys.path.insert(0, str(pathlib.Path(__file__).parent / 'lib'))"
    imports = f"import pathlib, sys, __main__\n{path}\nimport own_module"
    (folder / "model.py").write_text(MODEL.format(**(SOUND | {"imports": imports})))
    made = make_solution(str(folder), tmp_path / "s.zip", QUICK)
    assert made.succeeded and "own_module" not in texts(made), texts(made)
    (folder / "model.py").write_text(MODEL.format(**(SOUND | {"imports": "import own_module"})))
    made = make_solution(str(folder), tmp_path / "t.zip", QUICK)
    assert "cannot be imported: ModuleNotFoundError: No module named 'own_module'" in texts(made)


@pytest.mark.medium
def test_what_another_machine_may_lack_is_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    guarded = "try:\n    import no_such_module\nexcept ImportError:\n    pass\nimport pytest"
    (folder / "model.py").write_text(MODEL.format(**(SOUND | {"imports": guarded})))
    (folder / "metadata.yaml").write_text("command: python model.py\n")
    made = make_solution(str(folder), tmp_path / "s.zip", QUICK)
    assert made.succeeded
    assert "warning: model.py:3: imports `no_such_module`, which is not installed here" in texts(made)
    assert "warning: model.py:6: imports `pytest`, which the image of a competition may lack" in texts(made)
    assert "warning: metadata.yaml: has a command" in texts(made)


@pytest.mark.medium
def test_files_have_to_lie_at_the_root_and_the_configuration_has_to_be_sound(
    folder: Path, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    folder.rename(outer / "inner")
    assert "zip the files, not their folder" in texts(make_solution(str(outer), tmp_path / "s.zip", QUICK))
    wrong = make_bundle(name="wrong", config={"batch_size": 0})
    assert "batch_size = 0" in texts(make_solution(str(wrong), tmp_path / "s.zip", QUICK))
    assert "and no baseline" in texts(make_solution("nothing", tmp_path / "s.zip", QUICK))


@pytest.mark.medium
def test_autometa_comes_along_where_it_is_imported(tmp_path: Path) -> None:
    made = make_solution("prototypical", tmp_path / "s.zip", Options(dry_run_s=None, vendor=False))
    assert made.succeeded, texts(made)
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        names = archive.namelist()
    assert {
        "model.py",
        "api.py",
        "CARRIED.md",
        "autometa/submission.py",
        "autometa/systems/autometa.py",
    } <= set(names)
    assert "autometa/backbones/zoo.json" in names
    assert not [n for n in names if n.startswith(("vendor/", "weights/", "autometa/cli", "autometa/bundles"))]
    without = Options(dry_run_s=None, with_autometa=False, overwrite=True)
    make_solution("prototypical", tmp_path / "s.zip", without)
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert archive.namelist() == ["api.py", "metadata", "model.py", "settings.yaml"]


@pytest.mark.medium
def test_the_command_packs_tries_and_tells(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "s.zip"
    flags = [str(folder), "-o", str(target), "--no-dry-run"]
    done = CliRunner().invoke(command, flags)
    assert done.exit_code == 0 and "s.zip: " in done.output and "2 files" in done.output
    refused = CliRunner().invoke(command, flags)
    assert refused.exit_code == 2 and "add --overwrite" in refused.output
    told = json.loads(CliRunner().invoke(command, [*flags, "--overwrite", "--json"]).output)
    assert told["succeeded"] and told["size_bytes"] == target.stat().st_size
    (folder / "model.py").write_text("x = 1\n")
    failed = CliRunner().invoke(command, [*flags, "--overwrite"])
    assert failed.exit_code == 1 and "defines no class MyLearner" in failed.output
    for wrong in ([], ["random"], ["random", "--check", "x.zip"]):
        assert CliRunner().invoke(command, wrong).exit_code == 2
    idle = CliRunner().invoke(command, ["random", "-o", "x.zip", "--tasks", "3"])
    assert idle.exit_code == 2 and "--tasks has no effect on a bundle" in idle.output


@pytest.mark.medium
def test_the_dry_run_runs_the_zip_on_the_demo(folder: Path, make_bundle: MakeBundle, tmp_path: Path) -> None:
    made = make_solution(str(folder), tmp_path / "s.zip", Options(dry_run_s=40.0))
    assert made.succeeded and made.dry_run is not None and made.dry_run.tasks == 6
    assert (made.dry_run.score or 0) > 0
    broken = make_bundle(name="broken", fit="raise ValueError('too few images')")
    made = make_solution(str(broken), tmp_path / "b.zip", Options(dry_run_s=40.0))
    assert not made.succeeded and made.dry_run is not None
    assert "too few images" in made.dry_run.failures[1]
