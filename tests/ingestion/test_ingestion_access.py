"""Where a submission finds caches and weights of its user."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestion.access import child_environment, hugging_face_hub, readable_folders, torch_home


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME", "AUTOMETA_WEIGHTS_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_the_child_looks_where_its_parent_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hugging_face_hub() == tmp_path / ".cache" / "huggingface" / "hub"
    assert torch_home() == tmp_path / ".cache" / "torch"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    told = child_environment(tmp_path / "scratch", {})
    assert told["HF_HUB_CACHE"] == str(tmp_path / "xdg" / "huggingface" / "hub")
    assert told["TORCH_HOME"] == str(tmp_path / "xdg" / "torch")
    monkeypatch.setenv("HF_HOME", "~/hf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", "here")
    told = child_environment(tmp_path / "scratch", {})
    assert told["HF_HOME"] == str(tmp_path / "hf"), "the child has another home"
    assert told["TORCH_HOME"] == str(tmp_path / "here"), "and another working directory"


def test_folders_with_weights_are_open_with_what_their_links_lead_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "blob").write_bytes(b"weights")
    (tmp_path / "mine" / "net").mkdir(parents=True)
    (tmp_path / "mine" / "net.safetensors").symlink_to(elsewhere / "blob")
    (tmp_path / "mine" / "net" / "model.safetensors").symlink_to(elsewhere / "blob")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOMETA_WEIGHTS_DIR", "mine")
    assert child_environment(tmp_path, {})["AUTOMETA_WEIGHTS_DIR"] == str(tmp_path / "mine")
    assert {tmp_path / "mine", elsewhere / "blob"} <= set(readable_folders())


def test_search_paths_lead_nowhere_into_the_folder_of_the_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", ".:/usr/bin::bin:/bin")
    monkeypatch.setenv("LD_LIBRARY_PATH", ":/opt/lib")
    monkeypatch.setenv("PYTHONPATH", "mine")
    found = child_environment(tmp_path, {})
    assert (found["PATH"], found["LD_LIBRARY_PATH"]) == ("/usr/bin:/bin", "/opt/lib")
    assert found["PYTHONPATH"].split(":")[1:] == [str(Path("mine").absolute())]


def test_of_the_hub_only_models_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name in ("models--timm--net", "datasets--someone--birds"):
        (tmp_path / name / "blobs").mkdir(parents=True)
    inside = [folder for folder in readable_folders() if folder.is_relative_to(tmp_path)]
    assert inside == [tmp_path / "models--timm--net"]
