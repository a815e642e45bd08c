"""Files of tensors: on disks that are full, and for whom."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from autometa.core import files


def test_a_full_disk_is_an_error_of_the_system_and_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match=r"weights.*No space left"):
        files.save_tensors(tmp_path, "weights", {"a": torch.zeros(2)})
    assert not list(tmp_path.iterdir())


def test_who_may_read_a_file_of_tensors_is_for_the_umask_to_say(tmp_path: Path) -> None:
    (tmp_path / "text").touch()
    file = tmp_path / files.save_tensors(tmp_path, "weights", {"a": torch.zeros(2)})
    assert file.stat().st_mode == (tmp_path / "text").stat().st_mode
