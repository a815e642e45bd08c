"""What fetching does with files that are damaged, too long, or fetched by two processes at once."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub import Hub, serving
from huggingface_hub.file_download import http_get

from autometa.backbones import CATALOGUE, BackboneSpec, build, fetch
from autometa.backbones.local_weights import find_local_weights, hub_cache
from autometa.core.errors import WeightsError

HUB_ID = "timm/test_resnet.r160_in1k"
SPEC = BackboneSpec("from_hub", "test_resnet.r160_in1k", 0.5, 160, "none", hub_id=HUB_ID)
CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("AUTOMETA_WEIGHTS_DIR", "AUTOMETA_CACHES", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.files[HUB_ID] = {"model.safetensors": CONTENT}
        yield hub


def blob() -> Path:
    return hub_cache() / "models--timm--test_resnet.r160_in1k" / "blobs" / DIGEST


def gets(hub: Hub) -> list[str | None]:
    return [asked for method, _, asked in hub.requests if method == "GET"]


@pytest.mark.medium
@pytest.mark.parametrize("damaged", [CONTENT[:-9], b"x" + CONTENT[1:], CONTENT + b"x"])
def test_a_damaged_file_is_fetched_anew_once_it_is_deleted(hub: Hub, damaged: bytes) -> None:
    link = fetch.fetch(SPEC).file
    blob().write_bytes(damaged)
    link.unlink()  # what the user sees of it
    fetch.fetch(SPEC)
    assert link.read_bytes() == CONTENT and len(gets(hub)) == 2
    link.unlink()
    fetch.fetch(SPEC)
    assert len(gets(hub)) == 2, "a whole one is not fetched again"


@pytest.mark.medium
@pytest.mark.parametrize("left", [CONTENT + b"more", b"x" * (len(CONTENT) + 1)])
def test_a_part_that_is_too_long_is_fetched_anew(hub: Hub, left: bytes) -> None:
    part = blob().with_name(f"{DIGEST}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    assert fetch.fetch(SPEC).file.read_bytes() == CONTENT
    assert not part.exists()


@pytest.mark.medium
def test_two_that_fetch_at_once_do_not_write_into_one_file(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    both, inside, most = threading.Barrier(2, timeout=1), 0, 0

    def slow(*given: Any, **options: Any) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        with pytest.raises(threading.BrokenBarrierError):  # nobody else comes here meanwhile
            both.wait()
        http_get(*given, **options)
        inside -= 1

    monkeypatch.setattr(fetch, "http_get", slow)
    failures: list[BaseException] = []

    def fetch_it() -> None:
        try:
            fetch.fetch(SPEC)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=fetch_it) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and most == 1 and len(gets(hub)) == 1
    found = find_local_weights(SPEC)
    assert found is not None and found.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("hf-hub:timm/resnet18.a1_in1k", "such as `resnet18.a1_in1k`"),
        ("local-dir:/nowhere", "such as `resnet18`"),
        ("a/b", "such as `resnet18`"),
    ],
)
def test_a_name_with_a_source_is_refused_without_the_network(
    monkeypatch: pytest.MonkeyPatch, name: str, advice: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a network call was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(WeightsError, match="is a place, not the name of a model") as caught:
        build.build_backbone(name, "cpu")
    assert f"`{name}`" in str(caught.value) and advice in str(caught.value)


@pytest.mark.parametrize(
    "error", [ValueError("what?"), OSError("nothing there"), RuntimeError("Unknown model")]
)
def test_whatever_timm_says_of_a_name_is_an_error_of_weights(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(WeightsError, match="timm knows no model `from_hub`"):
        build.build_backbone("from_hub", "cpu")
    assert SPEC.name not in CATALOGUE
