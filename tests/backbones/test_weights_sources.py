"""Weights that are not in a package: found where they are, without the network; fetched from a hub when asked to."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner
from hub import Hub, serving
from safetensors.torch import save, save_file

from autometa.backbones import (
    CATALOGUE,
    PRESETS,
    BackboneSpec,
    build_backbone,
    installed_backbones,
    weights,
)
from autometa.backbones.__main__ import main
from autometa.backbones.fetch import fetch, fetch_named
from autometa.backbones.local_weights import find_local_weights, hub_cache, torch_cache
from autometa.core.errors import WeightsError

HUB_ID = "timm/test_resnet.r160_in1k"
SPEC = BackboneSpec(
    "test_resnet.r160_in1k", "test_resnet", 0.5, 64, "apache-2.0", hub_id=HUB_ID, url_file="resnet.pth"
)


def tiny_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """A whole checkpoint, with its classifier, as it is on the hub."""
    torch.manual_seed(seed)
    return {
        k: v.contiguous() for k, v in timm.create_model("test_resnet", num_classes=1000).state_dict().items()
    }


@pytest.fixture(autouse=True)
def no_caches_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTOMETA_WEIGHTS_DIR", "AUTOMETA_CACHES", "HF_HOME", "XDG_CACHE_HOME", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setitem(CATALOGUE, SPEC.name, SPEC)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.files[HUB_ID] = {"model.safetensors": save(tiny_state())}
        yield hub


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a network call was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def loads(state: dict[str, torch.Tensor]) -> bool:
    """Whether a backbone with these weights can be built now."""
    built = build_backbone(SPEC.name, "cpu").model.state_dict()
    return all(torch.equal(value, state[name]) for name, value in built.items())


@pytest.mark.parametrize(
    "name", [f"{SPEC.name}.safetensors", f"{SPEC.name}.pth", f"{SPEC.name}/model.safetensors"]
)
def test_a_folder_of_the_user_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    folder = tmp_path / "mine"
    file = folder / name
    file.parent.mkdir(parents=True)
    state = tiny_state(1)
    torch.save(state, file) if file.suffix == ".pth" else save_file(state, file)
    monkeypatch.setenv("AUTOMETA_WEIGHTS_DIR", os.pathsep.join([str(tmp_path / "none"), str(folder)]))
    assert find_local_weights(SPEC) == file and loads(state)
    assert SPEC.name in {spec.name for spec in installed_backbones()}


def test_the_cache_of_torch_is_read_as_it_is(tmp_path: Path, no_network: None) -> None:
    assert find_local_weights(SPEC) is None
    file = torch_cache() / "resnet.pth"
    file.parent.mkdir(parents=True)
    torch.save(tiny_state(2), file)
    file.parent.chmod(0o500)
    assert loads(tiny_state(2))
    file.parent.chmod(0o700)
    assert find_local_weights(SPEC, {**os.environ, "AUTOMETA_CACHES": "no"}) is None


def test_a_transformer_outside_the_catalogue_takes_one_size_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "test_vit.safetensors")
    monkeypatch.setenv("AUTOMETA_WEIGHTS_DIR", str(tmp_path))
    backbone = build_backbone("test_vit", "cpu")
    assert backbone.input_px(64) == 160
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert backbone.embed(images, 64).shape == (1, backbone.features)


def test_caches_are_found_where_the_variables_say() -> None:
    assert hub_cache({"HF_HUB_CACHE": "/a"}) == Path("/a")
    assert hub_cache({"HF_HOME": "/b"}) == Path("/b/hub")
    assert hub_cache({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")
    assert hub_cache({"HOME": "/d"}) == Path("/d/.cache/huggingface/hub")
    assert hub_cache({}).parts[-2:] == ("huggingface", "hub")
    assert torch_cache({"TORCH_HOME": "/e"}) == Path("/e/hub/checkpoints")


def test_what_is_nowhere_is_told_with_the_command(no_network: None) -> None:
    with pytest.raises(WeightsError, match=r"not on this machine; run: python .* fetch test_resnet"):
        build_backbone(SPEC.name, "cpu")


def test_a_damaged_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{SPEC.name}.safetensors").write_bytes(b"nothing")
    monkeypatch.setenv("AUTOMETA_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(WeightsError, match=r"test_resnet.*no weights of test_resnet .*delete it and run"):
        build_backbone(SPEC.name, "cpu")


@pytest.mark.parametrize("prefix", ["model.", "backbone."])
def test_a_file_with_other_names_is_not_taken_for_weights(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({prefix + k: v for k, v in tiny_state().items()}, tmp_path / f"{SPEC.name}.safetensors")
    monkeypatch.setenv("AUTOMETA_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(WeightsError, match=r"no weights of test_resnet .*Missing keys"):
        build_backbone(SPEC.name, "cpu")


def test_a_folder_serves_for_a_package_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "tf_efficientnet_lite0"
    state = {k: v.contiguous() for k, v in timm.create_model(name).state_dict().items()}
    save_file(state, tmp_path / f"{name}.safetensors")
    monkeypatch.setenv("AUTOMETA_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setattr(weights, "is_packaged", lambda _: False)
    built = build_backbone(name, "cpu").model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in built.items())
    assert name in {spec.name for spec in installed_backbones()}


@pytest.mark.medium
def test_what_was_fetched_is_used_without_the_network(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched = fetch(SPEC)
    size = len(hub.files[HUB_ID]["model.safetensors"])
    assert fetched.n_bytes == size and f"{size / 1e6:.1f} MB" in str(fetched)
    asked = len(hub.requests)
    again = fetch(SPEC)
    assert again.n_bytes == 0 and "at hand" in str(again) and len(hub.requests) == asked
    assert loads(tiny_state()) and len(hub.requests) == asked
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert loads(tiny_state())


@pytest.mark.medium
def test_an_older_format_is_fetched_where_there_is_no_other(hub: Hub, tmp_path: Path) -> None:
    file = tmp_path / "state.bin"
    torch.save(tiny_state(3), file)
    hub.files[HUB_ID] = {"pytorch_model.bin": file.read_bytes()}
    assert fetch(SPEC).file.name == "pytorch_model.bin"
    assert loads(tiny_state(3))


@pytest.mark.medium
def test_a_download_that_was_cut_goes_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 2**16)
    whole = hub.files[HUB_ID]["model.safetensors"]
    hub.cut_at = len(whole) // 2
    try:
        fetch(SPEC)
    except WeightsError as error:
        assert "fetch again" in str(error)
        fetch(SPEC)
    ranges = [asked for method, _, asked in hub.requests if method == "GET" and asked]
    assert any(asked != "bytes=0-" for asked in ranges), hub.requests
    assert loads(tiny_state())


@pytest.mark.medium
def test_what_an_earlier_download_has_left_is_not_fetched_again(hub: Hub) -> None:
    whole = hub.files[HUB_ID]["model.safetensors"]
    digest = hashlib.sha256(whole).hexdigest()
    part = hub_cache() / "models--timm--test_resnet.r160_in1k" / "blobs" / f"{digest}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(whole[:1000])
    assert fetch(SPEC).n_bytes == len(whole)
    ranges = [asked for method, _, asked in hub.requests if method == "GET"]
    assert ranges == ["bytes=1000-"] and not part.exists()
    assert loads(tiny_state())


@pytest.mark.medium
def test_another_digest_is_refused_and_the_file_deleted(hub: Hub) -> None:
    hub.lie = True
    with pytest.raises(WeightsError, match="damaged"):
        fetch(SPEC)
    assert find_local_weights(SPEC) is None
    hub.lie = False
    assert fetch(SPEC).n_bytes


@pytest.mark.medium
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"files": {}}, "no repository timm/test_resnet.r160_in1k; name another backbone"),
        ({"files": {HUB_ID: {}}}, "has none of model.safetensors, pytorch_model.bin"),
        ({"status": 429}, "too many requests (429); wait"),
        ({"status": 500}, "cannot be reached or fails"),
    ],
    ids=["404", "no file", "429", "500"],
)
def test_failures_are_one_line_with_what_to_do(
    hub: Hub, change: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in change.items():
        setattr(hub, name, value)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits between its tries
    with pytest.raises(WeightsError) as caught:
        fetch(SPEC)
    assert expected in str(caught.value) and str(caught.value).startswith(f"{SPEC.name}: ")
    assert "\n" not in str(caught.value)


def test_no_hub_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(WeightsError, match=r"127.0.0.1:9 cannot be reached .*check the connection"):
        fetch(SPEC)


@pytest.mark.medium
def test_the_limit_counts_all_together_and_failures_do_not_stop_the_others(hub: Hub) -> None:
    size = len(hub.files[HUB_ID]["model.safetensors"])
    lines: list[str] = []
    failures = fetch_named(["no_such_model", SPEC.name], lines.append, size - 1)
    assert len(failures) == 2 and "raise --limit" in str(failures[1])
    assert not fetch_named([SPEC.name], lines.append, size)


@pytest.mark.medium
def test_the_command_lists_and_fetches(hub: Hub) -> None:
    run = CliRunner()
    listed = run.invoke(main, ["list"])
    assert listed.exit_code == 0 and f"{SPEC.name} " in listed.output and " hub" in listed.output
    assert "--preset small: tf_efficientnet_lite0" in listed.output
    done = run.invoke(main, ["fetch", SPEC.name, "--limit", "1MB"])
    assert done.exit_code == (0 if len(hub.files[HUB_ID]["model.safetensors"]) <= 10**6 else 1), done.output
    assert run.invoke(main, ["fetch", SPEC.name]).exit_code == 0
    assert str(hub_cache()) in run.invoke(main, ["list"]).output
    refused = run.invoke(main, ["fetch"])
    assert refused.exit_code == 2 and "name backbones" in refused.output
    assert "is no size; write" in run.invoke(main, ["fetch", SPEC.name, "--limit", "much"]).output


def test_presets_name_rows_and_begin_with_what_is_installed_everywhere() -> None:
    for names in PRESETS.values():
        assert set(names) <= set(CATALOGUE) and names[0] == "tf_efficientnet_lite0"
        assert all(CATALOGUE[name].by_default for name in names)


def test_rows_of_the_zoo_are_complete() -> None:
    rows = [spec for spec in CATALOGUE.values() if spec.hub_id and spec is not SPEC]
    assert len(rows) >= 30
    for spec in rows:
        assert spec.parameters_m > 0 and spec.mega_macs > 0 and spec.licence and spec.pretraining
        assert spec.native_px % spec.patch_px == 0
    restricted = {spec.licence for spec in rows if not spec.by_default}
    assert {"dinov3-license", "fastvit-license"} <= restricted
    assert not any(spec.by_default for spec in rows if "nc" in spec.licence or "license" in spec.licence)
