"""Bundles that are broken or meant to do harm are refused in one line, which says what to do, by every program."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hostile_bundles import HOSTILE, SOUND, Hostile, packed

from autometa.bundles.errors import BundleError
from autometa.bundles.files import list_files
from autometa.cli.bundle import bundle
from autometa.cli.run import run
from autometa.cli.run_setup import names_ours
from ingestion import archives
from ingestion.__main__ import main as ingestion
from ingestion.bundle import open_bundle, read_config
from ingestion.errors import InputError
from ingestion.model_file import check_model

DEMO = Path(__file__).parents[2] / "examples" / "demo"


def _of_run(path: Path, output: Path) -> tuple[click.Command, list[str]]:
    return run, [f"--submission={path}", f"--output={output}", f"--dataset={DEMO}"]


def _of_ingestion(path: Path, output: Path) -> tuple[click.Command, list[str]]:
    return ingestion, [
        f"--submission_dir={path}", f"--output_dir_ingestion={output}", f"--input_data_dir={DEMO}"
    ]  # fmt: skip


def _of_bundle(path: Path, output: Path) -> tuple[click.Command, list[str]]:
    return bundle, [str(path), "-o", f"{output}.zip", "--no-dry-run"]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_it_is_refused_in_one_line_by_every_program(hostile: Hostile, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    path = hostile.make(folder)
    before = sorted(tmp_path.rglob("*"))
    for program, status in ((_of_run, 2), (_of_ingestion, 2), (_of_bundle, 1)):
        command, flags = program(path, tmp_path / program.__name__ / "out")
        done = CliRunner().invoke(command, flags)
        assert done.exit_code == status, done.output
        lines = [line for line in done.output.splitlines() if hostile.told in line]
        assert len(lines) == 1 and len(lines[0]) < 1000, done.output
        assert "Traceback" not in done.output
        assert program is _of_bundle or done.stderr.count("\n") == 1, done.stderr
        assert not [name for name in done.output if not name.isprintable() and name != "\n"]
    written = [path for path in tmp_path.rglob("*") if path not in before and path.is_file()]
    assert {path.name for path in written} <= {".autometa-run"}, "nothing of the bundle is left"


def test_a_sound_bundle_passes_all_checks(tmp_path: Path) -> None:
    """With names in other scripts and a comment of the archive, as a zip and as a folder."""
    names = ("größe.txt", "データ/画像.txt", "a b/c-d_e.f.g", ".hidden")
    data = packed(("model.py", SOUND), *((name, "x") for name in names))
    archive = tmp_path / "bundle.zip"
    archive.write_bytes(data)
    with zipfile.ZipFile(archive, "a") as opened:
        opened.comment = b"made by hand"
    folder = open_bundle(archive, tmp_path / "scratch")
    read_config(folder)
    check_model(folder)
    assert {file.name for file in list_files(folder)} == {"model.py", *names[:-1]}


@pytest.mark.parametrize("source", [
    "from helper import *",
    "from helper import MyMetaLearner, MyLearner",
    "try:\n    from fast import MyLearner, MyMetaLearner\nexcept ImportError:\n    MyLearner = MyMetaLearner = None",
    "globals().update(MyMetaLearner=1, MyLearner=2)",
    "def __getattr__(name):\n    return None",
    SOUND.replace("def fit(self, support_set)", "def fit(self, *everything)"),
    SOUND.replace("def fit(self, support_set)", "@staticmethod\n    def fit(support_set)"),
    SOUND.replace("def fit(self, support_set)", "def fit(self, support_set, steps=3)"),
    "PATTERN = '\\d'\n" + SOUND,
])  # fmt: skip
def test_what_only_an_import_can_tell_is_left_to_it(tmp_path: Path, source: str) -> None:
    (tmp_path / "model.py").write_text(source)
    check_model(tmp_path)


@pytest.mark.parametrize("program", [_of_run, _of_ingestion, _of_bundle])
def test_a_path_that_no_system_takes_is_refused(
    program: Callable[[Path, Path], tuple[click.Command, list[str]]], tmp_path: Path
) -> None:
    command, flags = program(Path("x" * 5000), tmp_path / "out")
    done = CliRunner().invoke(command, flags)
    assert done.exit_code in (1, 2) and "Traceback" not in done.output
    assert isinstance(done.exception, SystemExit) and "xxx" in done.output


def test_too_many_files_and_too_little_room_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "bundle.zip"
    archive.write_bytes(packed(("model.py", SOUND), ("a", ""), ("b", "")))
    monkeypatch.setattr(archives, "MAX_FILES", 2)
    with pytest.raises(InputError, match="3 files, at most 2; leave out"):
        open_bundle(archive, tmp_path / "scratch")
    monkeypatch.undo()
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 9}))
    with pytest.raises(InputError, match="has 9 bytes free; set TMPDIR"):
        open_bundle(archive, tmp_path / "scratch")


def test_names_that_clash_elsewhere_keep_a_folder_from_being_packed(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(SOUND)
    for names, told in (
        (("Data.txt", "data.txt"), "differ only in case"),
        (("nul.txt",), "device on Windows"),
    ):
        for name in names:
            (tmp_path / name).write_text("x")
        if len(list(tmp_path.iterdir())) == len(names) + 1:  # else the disk takes them for one
            with pytest.raises(BundleError, match=told):
                list_files(tmp_path)
        for name in names:
            (tmp_path / name).unlink(missing_ok=True)


def test_looking_for_our_own_bundles_does_not_unpack_a_bomb(tmp_path: Path) -> None:
    archive = tmp_path / "bundle.zip"
    for hostile in HOSTILE:
        folder = tmp_path / f"{hostile.name}".replace("/", " ")
        folder.mkdir()
        assert names_ours(hostile.make(folder)) in (True, False)
    archive.write_bytes(packed(("model.py", b" " * (2**20) + b"autometa.submission")))
    assert not names_ours(archive), "only its beginning is looked at"
