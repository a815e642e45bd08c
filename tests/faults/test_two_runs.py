"""Two programs with one output, one model or one cache: the second is refused in a line, or both work."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from ingestion_runs import TASKS, Runner
from synthetic import MakeBundle, write_meta_album
from waiting_bundle import wait_between

from autometa.backbones.feature_files import FeatureFiles
from autometa.cli.main import cli
from autometa.core.claims import locked_folder
from autometa.core.errors import ConfigError
from ingestion import InputError
from ingestion.albums import read_meta_album
from ingestion.images import decode_dataset
from ingestion.outputs import Reserve, prepare_output_dir, refuse_in_use


def test_a_model_folder_that_another_program_fills_is_refused(tmp_path: Path) -> None:
    photos = write_meta_album(tmp_path / "SET", [9] * 8)
    with locked_folder(tmp_path / "model", "--output"):
        for _ in range(2):
            shown = CliRunner().invoke(
                cli, ["fit", str(photos), "--output", str(tmp_path / "model"), "--overwrite"]
            )
            assert shown.exit_code == 2 and shown.stderr.count("\n") == 1
            assert f"--output {tmp_path / 'model'}: another program is using it; name another" in shown.stderr
    with locked_folder(tmp_path / "model", "--output"):
        pass  # free again
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"file: cannot be used \(File exists\)"),
        locked_folder(tmp_path / "file", "-o"),
    ):
        pass


def test_an_ingestion_output_in_use_is_neither_renamed_nor_emptied_nor_resumed(tmp_path: Path) -> None:
    output = tmp_path / "out"
    prepare_output_dir(output, output / "model", overwrite=False)
    with Reserve.in_folder(output, []):
        for overwrite in (False, True):
            with pytest.raises(InputError, match="another run is using it; name another folder"):
                prepare_output_dir(output, output / "model", overwrite=overwrite)
        with pytest.raises(InputError, match="another run is using it"):
            refuse_in_use(output)
    prepare_output_dir(output, output / "model", overwrite=False)
    assert len(list(tmp_path.iterdir())) == 2  # the earlier one was renamed


def test_an_output_is_emptied_however_early_its_run_was_killed_and_nothing_else_is(tmp_path: Path) -> None:
    output = tmp_path / "out"
    for left in ((), ("run.json",), ("submission.log",)):
        prepare_output_dir(output, output / "model", overwrite=True)
        for name in left:
            (output / name).write_text("{}")
        prepare_output_dir(output, output / "model", overwrite=True)
        assert sorted(path.name for path in output.iterdir()) == ["logs", "model"]
    (output / "logs" / "mine.txt").touch()
    with pytest.raises(InputError, match="holds other files, so it is not emptied"):
        prepare_output_dir(output, output / "model", overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: is a file; name a folder"):
        prepare_output_dir(tmp_path / "file", output / "model", overwrite=True)


@pytest.mark.medium
def test_a_second_ingestion_leaves_the_first_one_alone(
    runner: Runner, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    bundle = make_bundle(meta_fit=wait_between(started, ended))
    results = []
    thread = threading.Thread(target=lambda: results.append(runner(bundle)))
    thread.start()
    while not started.exists():
        thread.join(0.05)
    second = Runner(runner.dataset, runner.output)
    with pytest.raises(InputError, match="another run is using it"):
        second(bundle)
    ended.touch()
    thread.join()
    assert results[0].succeeded and not results[0].failures
    assert len(list(runner.output.glob("task_*.predict"))) == TASKS


def test_two_programs_fill_one_cache_at_once(tmp_path: Path) -> None:
    dataset = read_meta_album(write_meta_album(tmp_path / "D", [4] * 4))
    keys, features = [bytes([n] * 16) for n in range(8)], np.arange(32, dtype=np.float32).reshape(8, 4)
    decoded, failures = list[np.ndarray](), list[Exception]()

    def work() -> None:
        try:
            decoded.append(np.array(decode_dataset(dataset, 16, tmp_path).images))
            kind = FeatureFiles(
                tmp_path / "features", report=lambda line: failures.append(Exception(line))
            ).kind({})
            kind.add(keys, features)
            assert len(kind.find(keys)) == 8
        except Exception as error:  # noqa: BLE001 - every failure of a thread counts
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(decoded) == 4 and all(np.array_equal(each, decoded[0]) for each in decoded)
