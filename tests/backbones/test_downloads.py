"""What `--download allow` fetches before a run: what there is room for, by prediction; and the run that follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub import Hub, serving
from safetensors.torch import save

from autometa.backbones import CATALOGUE, PRESETS, BackboneSpec
from autometa.backbones.costs import read_costs
from autometa.backbones.local_weights import find_local_weights
from autometa.cli import downloads
from autometa.cli.downloads import count_images
from autometa.cli.run_setup import prepare_weights
from autometa.core.options import RunOptions
from autometa.data.episodes import EpisodeSpec

TINY = (
    "test_efficientnet",
    "test_resnet",
    "test_vit",
    "test_convnext",
    "test_byobnet",
    "test_mambaout",
    "test_efficientnet_ln",
    "test_efficientnet_gn",
)
FORM = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)


def counted(work: float) -> dict[str, list[float]]:
    """Figures of a network, all alike, for the table of costs."""
    figures = {name: [work, 4 * work] for name in ("dense", "grouped", "traffic", "peak", "ops")}
    return {"px": [64.0, 128.0]} | figures


def checkpoint(architecture: str) -> bytes:
    torch.manual_seed(0)
    state = timm.create_model(architecture, num_classes=0).state_dict()
    return save({key: value.contiguous() for key, value in state.items()})


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A catalogue of tiny networks alone, and empty caches."""
    for name in list(CATALOGUE):
        monkeypatch.delitem(CATALOGUE, name)
    for place, name in enumerate(TINY):
        patch = 16 if name == "test_vit" else 1
        row = BackboneSpec(
            name, name, 0.5, 160, "none", patch_px=patch, hub_id=f"timm/{name}", pretraining=name
        )
        monkeypatch.setitem(CATALOGUE, name, row)
        monkeypatch.setitem(read_costs()["counts"], name, counted(1.0 + place))
    for name in ("AUTOMETA_WEIGHTS_DIR", "AUTOMETA_CACHES", "AUTOMETA_BACKBONES", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr(downloads, "measure_slowness", lambda: 1e-4)
    return list(TINY)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, catalogue: list[str]) -> Iterator[Hub]:
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.files = {f"timm/{name}": {"model.safetensors": checkpoint(name)} for name in catalogue}
        yield hub


def allow(tmp_path: Path, lines: list[str], **options: Any) -> float:
    given = RunOptions(download="allow", **({"time_budget": "600s"} | options))
    return prepare_weights(given, tmp_path, given.time_budget, lines.append, given.memory_budget)


@pytest.mark.medium
def test_what_there_is_room_for_is_fetched_and_nothing_else_is_asked_for(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(read_costs()["counts"], TINY[0], counted(1e9))
    lines: list[str] = []
    assert allow(tmp_path, lines) > 0
    fetched = {name for name in TINY if find_local_weights(CATALOGUE[name])}
    assert fetched == set(TINY[1:]) and len(lines) == len(fetched)
    assert not any(TINY[0] + "/" in path for _, path, _ in hub.requests)


@pytest.mark.medium
def test_a_limit_of_bytes_holds_for_what_is_chosen(hub: Hub, tmp_path: Path) -> None:
    lines: list[str] = []
    allow(tmp_path, lines, download_limit="5MB")  # each is expected to have 2 MB
    assert len(lines) == 2 and not any("failed" in line for line in lines)


@pytest.mark.medium
def test_of_a_preset_what_does_not_fit_is_told(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "tiny", ("test_resnet", "test_vit"))
    monkeypatch.setitem(read_costs()["counts"], "test_vit", counted(1e9))
    lines: list[str] = []
    allow(tmp_path, lines, preset="tiny")
    assert lines[0] == "not fetched, as there is no room for it: test_vit"
    assert len(lines) == 2 and lines[1].startswith("test_resnet: ")


@pytest.mark.medium
def test_what_is_named_is_fetched_whatever_it_costs(hub: Hub, tmp_path: Path) -> None:
    lines: list[str] = []
    allow(tmp_path, lines, backbones="test_vit,test_resnet", time_budget="20s")
    assert [line.split(":")[0] for line in lines] == ["test_vit", "test_resnet"]


def test_images_are_counted_in_all_folders(tmp_path: Path) -> None:
    for file in ("a/1.jpg", "a/2.PNG", "b/c/3.jpeg", "labels.csv"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert count_images(tmp_path) == 3
    assert count_images(tmp_path / "none") == downloads.USUAL_IMAGES


@pytest.mark.medium
def test_the_machine_is_measured() -> None:
    assert downloads.measure_slowness() > 0
